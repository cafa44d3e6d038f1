# Managed by Ansible (collection ipyparallel.cluster): changes are overwritten.
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the notebook and its kernels know of their cluster."""
