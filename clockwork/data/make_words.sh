#!/usr/bin/env bash
# make_words.sh OUTDIR
# The 25 words of the Clockwork RNN paper's spoken word task (five groups of five
# by suffix), each spoken by 7 synthetic voices: 175 files
#   OUTDIR/<voice>/<word>.wav   RIFF PCM16 mono 16 kHz, silence trimmed, peak -1 dB
# and OUTDIR/words.tsv (file, word, group, voice, samples).
# All voices have BSD-like licences (CMU / University of Edinburgh: flite, festvox):
# 5 voices and 2 made from them by resampling (shorter or longer vocal tract);
# the duration is put back with sox tempo.
# Needs (Debian 12 main): apt-get install -y --no-install-recommends \
#   flite festival festvox-kdlpc16k sox
# Then: python -m clockwork.data.make_words OUTDIR
set -euo pipefail
out=${1:?usage: make_words.sh OUTDIR}
mkdir -p "$out"; tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
GROUPS_=(
 "ing:making walking cooking looking working"
 "ical:biblical cyclical technical classical critical"
 "ition:tradition addition audition recognition competition"
 "ions:musicians discussions regulations accusations conditions"
 "way:subway leeway freeway highway hallway")
VOICES=(fl_kal16 fl_awb fl_rms fl_slt fe_ked sh_child sh_deep)
say() { # voice word wav
  local v=$1 w=$2 f=$3
  case $v in
    fl_*)  flite -voice "${v#fl_}" -t "$w" -o "$f" ;;
    fe_ked)    printf '%s\n' "$w" | text2wave -eval '(voice_ked_diphone)' -o "$f" ;;
    sh_child) flite -voice slt -t "$w" -o "$tmp/s.wav" && sox -D -R "$tmp/s.wav" "$f" speed 1.22 tempo -s 0.82 ;;
    sh_deep)  flite -voice awb -t "$w" -o "$tmp/s.wav" && sox -D -R "$tmp/s.wav" "$f" speed 0.80 tempo -s 1.25 ;;
    *) echo "no voice $v" >&2; return 2 ;;
  esac
}
: > "$tmp/rows"
for g in "${GROUPS_[@]}"; do
  name=${g%%:*}
  for w in ${g#*:}; do
    for v in "${VOICES[@]}"; do
      mkdir -p "$out/$v"
      say "$v" "$w" "$tmp/a.wav" >/dev/null 2>&1
      # -D -R: no dither, repeatable; trim both ends below 1 % for 5 ms
      sox -D -R "$tmp/a.wav" -r 16000 -c 1 -b 16 "$tmp/b.wav" \
        silence 1 0.005 1% reverse silence 1 0.005 1% reverse gain -n -1
      mv "$tmp/b.wav" "$out/$v/$w.wav"
      n=$(soxi -s "$out/$v/$w.wav")
      printf '%s\t%s\t%s\t%s\t%s\n' "$v/$w.wav" "$w" "$name" "$v" "$n" >> "$tmp/rows"
    done
  done
done
{ printf 'file\tword\tgroup\tvoice\tsamples\n'; cat "$tmp/rows"; } > "$out/words.tsv"
echo "$(($(wc -l < "$out/words.tsv") - 1)) files in $out"
