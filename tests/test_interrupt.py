"""Ctrl-C and SIGTERM, wherever they strike. Each in a process of its own, as signals go to whole processes."""

import signal
import subprocess
import sys

import pytest

# A C function that no signal ends, as a compilation is one: a lock of which nobody lets go.
PRELUDE = """
import ctypes, os, signal, sys, time
def stuck():
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(mutex)
    print("stuck", flush=True)
    libc.pthread_mutex_lock(mutex)
"""
WAIT = (
    PRELUDE
    + """
from clockwork.training.interrupt import Interruptible, Terminated, leave
def ask(*numbers):
    for number in numbers:
        os.kill(os.getpid(), number)
        heard = interruptible.asked
        while interruptible.asked is heard:
            time.sleep(0.01)
def epochs():
    ask(signal.SIGINT)
    return 5
def more():
    ask(signal.SIGINT, signal.SIGINT)
    stuck()
def compilation():
    ask(getattr(signal, sys.argv[1]))
    stuck()
def failing():
    raise ValueError("as it would be")
with Interruptible() as interruptible:
    try:
        interruptible.wait(failing)
    except ValueError as error:
        print(error)
    print(interruptible.wait(lambda: 3))
    if sys.argv[1] == "epochs":
        print(interruptible.wait(epochs, training=True))
        work, training = lambda: print("never"), False
    else:
        work, training = (more, True) if sys.argv[1] == "more" else (compilation, False)
    try:
        interruptible.wait(work, training=training)
    except KeyboardInterrupt as error:
        print("stopped", isinstance(error, Terminated), flush=True)
sys.exit(leave(7))
"""
)


@pytest.mark.parametrize(
    ("case", "said", "told"),
    [
        ("epochs", "5 stopped False", "Stopping after the epochs in progress; press Ctrl-C again to stop at once."),
        ("more", "stopped False", "Stopping after the epochs in progress; press Ctrl-C again to stop at once."),
        ("SIGINT", "stopped False", ""),
        ("SIGTERM", "stopped True", ""),
    ],
)
def test_what_is_waited_for_and_what_is_not(case, said, told):
    done = subprocess.run([sys.executable, "-c", WAIT, case], capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    assert " ".join(done.stdout.replace("stuck", "").split()) == f"as it would be 3 {said}"
    assert done.stderr.strip() == told


# The command line, with a compilation that never ends: of the first network or, with some of it trained, of the second.
COMPILING = (
    PRELUDE
    + """
import jax
compile, count = jax.stages.Lowered.compile, 0
def endless(lowered, *arguments, **options):
    global count
    count += 1
    return stuck() if count == int(sys.argv[1]) else compile(lowered, *arguments, **options)
jax.stages.Lowered.compile = endless
from clockwork.cli import main
sys.exit(main(sys.argv[2:]))
"""
)
OPTIONS = ["generation", "--runs", 1, "--networks", "cwrnn", "--sizes", 100, "--clips", 2, "--epochs", 60, "--out"]


@pytest.mark.parametrize(("ask", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("number", [1, 3])  # compiled first: how runs begin; third: how they are evaluated
def test_a_compilation_is_not_waited_for(tmp_path, ask, status, number):
    command = [sys.executable, "-c", COMPILING, number, *OPTIONS, tmp_path / "out"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert any(line == "stuck\n" for line in process.stdout)
    process.send_signal(ask)
    _, said = process.communicate()
    assert process.returncode == status
    (line,) = said.strip().splitlines()
    assert line.startswith(f"Stopped. What is done is safe in {tmp_path / 'out'}; to go on: clockwork generation ")
    stored = [path.name for path in (tmp_path / "out" / "partial").iterdir()]
    assert stored == ([] if number == 1 else ["cwrnn-100.npz"])


def test_python_ends_only_when_a_compilation_does():
    code = PRELUDE + (
        "from clockwork.training.interrupt import Interruptible\n"
        "def compilation():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    ctypes.CDLL(None).sleep(2)\n"
        "    print('compiled', flush=True)\n"
        "with Interruptible() as interruptible:\n"
        "    interruptible.wait(compilation)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "compiled\n"
    assert done.stderr.endswith("KeyboardInterrupt\n")
    assert done.returncode == -signal.SIGINT  # not an abort
