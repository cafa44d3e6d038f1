#!/usr/bin/python
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Place files on a host as its account; the action of this name reads and sends them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: put_files
short_description: Bring a file or directory of the operator's to a host, for the cluster's account
version_added: 0.1.0
author: The ipyparallel.cluster authors (@ipyparallel)
description:
  - Files have the operator's mode, new directories mode 0700. What a link of the operator's leads to is in its place.
  - Where root runs the module, it looks and writes as O(owner), so that a link on the host leads it to nothing that the
    account could not write itself.
  - All is asked in one question, and all that differs is sent in one archive.
options:
  source:
    description: A file or directory on the operator's machine, which keeps its name.
    type: path
    required: true
  destination:
    description: The directory on the host that it goes into, made where it is missing. A relative one is below the
      account's home.
    type: str
    default: ''
  directories:
    description: The directories of O(source). The action finds them.
    type: list
    elements: str
    default: []
  files:
    description: The files of O(source), each with C(path), C(mode) and C(checksum). The action finds them.
    type: list
    elements: dict
    default: []
  archive:
    description: Path on the host of the content that was sent. The action sends it.
    type: path
extends_documentation_fragment:
  - ipyparallel.cluster.owned
  - ipyparallel.cluster.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Put it there
  ipyparallel.cluster.put_files:
    source: job
    destination: ~/data
    owner: ipyparallel
"""

RETURN = r"""
destination:
  description: The directory on the host that it went into.
  type: str
  returned: success
  sample: /home/ipyparallel/data
sent:
  description: The files whose content was sent, or would be.
  type: list
  elements: str
  returned: success
  sample: [job/run.py]
"""

import contextlib
import os
import tarfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import OWNED_ARGUMENT_SPEC, Ownership
from ansible_collections.ipyparallel.cluster.plugins.module_utils.transfer import Placing, TransferError, destination_of

ASKED_ARGUMENT_SPEC = {
    "source": {"type": "path", "required": True},
    "destination": {"type": "str", "default": ""},
    **OWNED_ARGUMENT_SPEC,
}
"""What the action is given."""
ARGUMENT_SPEC = {
    **ASKED_ARGUMENT_SPEC,
    "directories": {"type": "list", "elements": "str", "default": []},
    "files": {"type": "list", "elements": "dict", "default": []},
    "archive": {"type": "path"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    account = params["owner"] or "of the login"
    try:
        ownership = Ownership(params["owner"], params["group"])
    except KeyError as error:
        module.fail_json(
            msg=f"there is no such account or group on {os.uname().nodename} ({error.args[0]}): deploy the cluster "
            "first (playbook ipyparallel.cluster.deploy), or set ipyparallel_user and ipyparallel_group to those it "
            "was deployed with"
        )
    destination = params["destination"]
    try:
        destination = destination_of(params["owner"], destination)
        placing = Placing(destination, ownership, check=module.check_mode, diff=module._diff)
        # opened first: it is in a directory of the login's
        sent = tarfile.open(params["archive"]) if params["archive"] else contextlib.nullcontext()  # noqa: SIM115
        with sent as archive, ownership.being():
            for path in ("", *params["directories"]):
                placing.directory(path)
            for file in params["files"]:
                placing.file(file["path"], file["mode"], file["checksum"], archive)
    except TransferError as error:
        module.fail_json(msg=str(error))
    except KeyError:
        module.fail_json(msg=f"what is in {destination} has changed meanwhile: run again")
    except OSError as error:
        module.fail_json(
            msg=f"account {account} cannot write {error.filename or destination}: {error.strerror}; make room, give "
            "the account the directory, or set ipyparallel_put_destination to another"
        )
    module.exit_json(
        changed=bool(placing.changes or placing.missing or archive),
        destination=destination,
        changes=placing.changes,
        missing=placing.missing,
    )


if __name__ == "__main__":
    main()
