#!/bin/sh
# Runs every fuzz target, or those that are named, one after the other, and writes what each did to LOG:
#     fuzz/run.sh LOG [SECONDS [TARGET...]]
# from the root; 180 seconds each unless told. FUZZ_BINARIES names a folder of built targets, which are then not built.
# The exit status is the number of targets that found something; what broke one lies in fuzz/artifacts/TARGET.
set -eu
log=$1 seconds=${2:-180} failed=0
shift "$(($# < 2 ? $# : 2))"
named=" $* "
export ASAN_OPTIONS=detect_odr_violation=0
if [ -z "${FUZZ_BINARIES:-}" ]; then
    RUSTC_BOOTSTRAP=1 cargo fuzz build
    FUZZ_BINARIES=fuzz/target/$(rustc -vV | sed -n 's/^host: //p')/release
fi
{
    echo "commit $(git rev-parse --short HEAD)$(git diff --quiet HEAD -- || echo ', changed')"
    rustc --version
    echo "address sanitizer, $seconds s a target, $(date -u +%Y-%m-%dT%H:%MZ)"
} > "$log"
for source in fuzz/fuzz_targets/*.rs; do
    target=$(basename "$source" .rs)
    case $named in
        "  " | *" $target "*) ;;
        *) continue ;;
    esac
    dictionary=fuzz/text.dict
    case $target in
        files) continue ;; # Shared code.
        checkpoint | layer_state | layer_forward | layer_backward | layer_restore)
            dictionary=fuzz/safetensors.dict ;;
    esac
    mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
    status=0
    nice -n 15 "$FUZZ_BINARIES/$target" "-artifact_prefix=fuzz/artifacts/$target/" \
        "-dict=$dictionary" -max_len=8192 -timeout=20 "-max_total_time=$seconds" \
        -print_final_stats=1 "fuzz/corpus/$target" "fuzz/seeds/$target" \
        > "fuzz/artifacts/$target.txt" 2>&1 || status=$?
    {
        echo
        echo "== $target"
        # What it began with, what it did, and what it found.
        grep -E '^(INFO: (Running|seed)|#[0-9]+.(INITED|DONE)|Done |stat::)|INFO: +[0-9]+ files|ERROR|SUMMARY|panicked|deadly|Test unit' \
            "fuzz/artifacts/$target.txt" || true
        echo "exit status $status"
    } >> "$log"
    [ "$status" -eq 0 ] || failed=$((failed + 1))
done
exit "$failed"
