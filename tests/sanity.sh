#!/usr/bin/env bash
# `ansible-test sanity` in a copy of the work tree: what git tracks, and what is new and not ignored.
# Usage: tests/sanity.sh [argument of ansible-test sanity ...]
set -euo pipefail

cd "$(dirname "$0")/.."
root=$(pwd -P)
export PATH=$root/.cache/dev/bin:$PATH

# ansible-test wants a directory that ends in ansible_collections/<namespace>/<name>, and judges what git has there: a
# repository of its own, as the copy is in a directory that the outer one ignores.
copy=build/sanity/ansible_collections/ipyparallel/cluster
rm -rf build/sanity
mkdir -p "$copy"
git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do if [ -e "$file" ]; then printf '%s\0' "$file"; fi; done |
    tar --create --null --files-from=- | tar --extract --directory="$copy"
git init --quiet "$copy"

# It keeps virtual environments for its tests in its home, and passes on nothing but PATH and HOME to pip. A home of its
# own, with the caller's pip settings, leaves the caller's clean, and has room for a stand-in for get-pip.py, which
# ansible-test would download from a host of its own: Python brings a pip.
home=$root/.cache/sanity
mkdir -p "$home/.ansible/test/cache" "$home/.cache" "$home/.config"
for settings in .config/pip .pip .cache/pip; do
    if [ -e "$HOME/$settings" ] && [ ! -e "$home/$settings" ]; then ln -s "$HOME/$settings" "$home/$settings"; fi
done
pip_version=$(python -c 'from ansible_test._internal.python_requirements import get_venv_packages as packages
from types import SimpleNamespace
print(packages(SimpleNamespace(version="any"))["pip"].replace(".", "_"))')
cat > "$home/.ansible/test/cache/get_pip_$pip_version.py" <<'EOF'
import subprocess
import sys

options = [option for option in sys.argv[1:] if option not in ("--no-setuptools", "--no-wheel")]
subprocess.check_call([sys.executable, "-m", "ensurepip"], stdout=subprocess.DEVNULL)
subprocess.check_call([sys.executable, "-m", "pip", "install", *options])
EOF

# Only this Python: a python3.x on PATH need not work (pyenv's do not). Ruff and mypy judge by the oldest one.
cd "$copy"
python=$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
HOME=$home ansible-test sanity --local --requirements --python "$python" --color no "$@" </dev/null |
    sed -E '/^( |Looking in |Collecting |Processing |Installing collected |Successfully |Using cached pip |WARNING: Location )/d'
