"""Teach networks a piece of your own sound: ``python examples/own_audio.py SOUND.wav [FOLDER]``."""

import sys

from clockwork.report import write_report
from clockwork.tasks import Generation
from clockwork.training import sweep, use_all_cores

if len(sys.argv) < 2:
    sys.exit(__doc__)
use_all_cores()
sound, folder = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "results/example-audio"
task = Generation(runs=4, networks=("cwrnn",), sizes=(100, 250), epochs=300, audio=sound, audio_start=0.25, samples=400)
for path in write_report(sweep(task, folder), folder):
    print("written:", path)
