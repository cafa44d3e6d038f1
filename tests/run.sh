#!/usr/bin/env bash
# Run parts of the tests, which are targets of the Makefile, one after the other. A part that fails does not keep the
# next from running. Closes with what each took, and with the closing lines of pytest.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
mkdir -p build
[ -t 1 ] || export NO_COLOR=1

failed=0
summary=()
closing=()
for part in "$@"; do
    log=build/test-$part.log
    echo "──── $part"
    start=$SECONDS
    if make "$part" 2>&1 | tee "$log"; then verdict=passed; else verdict=FAILED failed=1; fi
    summary+=("$(printf '%-16s %s  %4d s' "$part" "$verdict" $((SECONDS - start)))")
    # ===== 80 passed, 1 skipped in 2.10s =====
    while IFS= read -r line; do closing+=("$line"); done < <(grep -E '^=+ .*(passed|failed|error|skipped|no tests ran).* in [0-9.]+s.* =+$' "$log")
done

printf '──── %s\n' summary
printf '%s\n' "${summary[@]}" "total $SECONDS s"
if [ ${#closing[@]} -gt 0 ]; then printf '%s\n' "${closing[@]}"; fi
exit $failed
