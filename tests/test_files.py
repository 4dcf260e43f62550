"""Files: whole or not at all, one writer a folder, and nothing left behind."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clockwork.files import TEMPORARY, claimed, regular_file, remove_abandoned, write_text, write_whole

HOLD = """
import sys, time
from pathlib import Path
from clockwork.files import claimed
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(1000)
"""


def test_a_folder_has_one_writer_and_a_dead_ones_claim_is_not_in_the_way(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match="is in use by another sweep: wait until it ends"), claimed(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with claimed(tmp_path):
        pass
    with claimed(tmp_path):  # and is free again when it ends
        pass


def test_what_dead_processes_left_half_written_is_removed(tmp_path):
    (tmp_path / "conditions").mkdir()
    (tmp_path / "best").mkdir()
    ours = [tmp_path / "conditions" / f"{TEMPORARY}1.npz", tmp_path / f"{TEMPORARY}2.json"]
    young, old = tmp_path / f"{TEMPORARY}3.png", tmp_path / "best" / f"{TEMPORARY}4.wav"
    kept = tmp_path / "conditions" / "srn.npz"
    for path in (*ours, young, old, kept):
        path.write_bytes(b"half")
    os.utime(old, times=(0, 0))
    remove_abandoned(tmp_path, (".npz", ".json"))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [young, kept]  # someone may be drawing a figure


@pytest.mark.parametrize("failing", ["write", "flush"])
def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path, monkeypatch, failing):
    path = tmp_path / "condition.npz"
    write_whole(path, b"old")

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if failing == "flush":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device: .*condition\.npz") as raised:
        write_whole(path, b"new")
    assert raised.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_text_with_the_name_of_a_file_that_is_not_utf8(tmp_path):
    write_text(tmp_path / "table.md", "± of \udcff.wav")
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == "± of \\udcff.wav"


def test_pipes_and_folders_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, wrong in (("pipe", "is a pipe or a device"), ("folder", "is a folder"), ("none", "does not exist")):
        with pytest.raises(ValueError, match=f"{name} {wrong}"):
            regular_file(tmp_path / name)
