# Managed by Ansible (collection ipyparallel.cluster): changes are overwritten.
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Start JupyterLab as ``bin/jupyter-lab`` does, without a grammar that it never uses."""

from __future__ import annotations

import sys

# jsonschema loads this grammar of internationalised addresses where it is installed (jupyter_events installs it) and
# does without it where it is not. No schema of Jupyter uses it; it costs most of a second at each start, and 16 MB.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]

if __name__ == "__main__":
    from jupyterlab.labapp import main

    sys.exit(main())
