#!/usr/bin/python
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keep the password and the token of a cluster's notebook, and look at its certificate."""

from __future__ import annotations

DOCUMENTATION = r"""
module: notebook_secrets
short_description: Keep password and token of the notebook of an ipyparallel cluster, and look at its certificate
version_added: 0.1.0
author: The ipyparallel.cluster authors (@ipyparallel)
description:
  - Keeps the argon2id hash of the password, made by C(jupyter_server.auth.passwd), as long as it verifies, and a random
    token.
  - A password that is given is kept as its hash only. Where none was ever given, a random one is made and kept in a
    file for its owner to read.
  - All files have mode 0600 from their first byte and are replaced in one step. The module returns no secret.
  - Tells whether the certificate in C(certificate.pem) has to be issued, and that of the authority which signs it, and
    gives its key in C(key.pem) mode 0600. It makes none of them.
  - Runs on the notebook host, in the Python of the cluster's environment.
options:
  directory:
    description:
      - Directory for the files C(password.hash), C(token) and, for a random password, C(password). It is made with mode
        0700 when it is missing.
    type: path
    required: true
  password:
    description:
      - The password. It has at least 8 characters, no control characters, and no space at its ends, because the login
        form drops that.
      - Not given, the password that is in force stays. Where there is none, a random one is made.
    type: str
  python:
    description: Path of the Python interpreter of the cluster's environment. The module continues there.
    type: path
    required: true
  names:
    description:
      - What the certificate has to be valid for, each as C(DNS:node1) or C(IP:10.0.0.5).
    type: list
    elements: str
    default: []
  authority:
    description:
      - Certificate, in PEM, of the authority that has to have signed the certificate; empty where there is none yet.
      - Without it, the certificate is the user's own, and nothing is said of it.
    type: str
  renewal_days:
    description: For how many days from now the certificate has to be valid.
    type: int
    default: 30
  valid_days:
    description: For how many days a new certificate is valid, and so for how many the authority has to be.
    type: int
    default: 825
extends_documentation_fragment:
  - ipyparallel.cluster.owned
  - ipyparallel.cluster.attributes
attributes:
  check_mode:
    support: full
    details:
      - On a host that has no environment yet it cannot verify a hash or look at a certificate, and says that the given
        password would be hashed.
  diff_mode:
    support: full
    details:
      - It is a sentence about the password and one about the token.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Keep the password in force, or make a random one
  ipyparallel.cluster.notebook_secrets:
    directory: /var/lib/ipyparallel/ipyparallel/notebook
    python: /opt/ipyparallel/ipyparallel/current/bin/python
    names: [DNS:localhost, DNS:node1, IP:10.0.0.5]
    authority: "{{ half.authority }}"
  register: login

- name: Say how to see it
  ansible.builtin.debug:
    msg: "The notebook's password: {{ login.command }}"
  when: login.command is not none

- name: Set the password
  ipyparallel.cluster.notebook_secrets:
    directory: /var/lib/ipyparallel/ipyparallel/notebook
    python: /opt/ipyparallel/ipyparallel/current/bin/python
    password: "{{ vault_notebook_password }}"
"""

RETURN = r"""
hash_file:
  description: Path of the file with the hash of the password.
  type: str
  returned: success
  sample: /var/lib/ipyparallel/ipyparallel/notebook/password.hash
token_file:
  description: Path of the file with the token, without a newline at its end.
  type: str
  returned: success
  sample: /var/lib/ipyparallel/ipyparallel/notebook/token
password_file:
  description: Path of the file with the random password. None, when the user gave the password.
  type: str
  returned: success
  sample: /var/lib/ipyparallel/ipyparallel/notebook/password
command:
  description: The shell command that shows the password on this host. None, when the user gave the password.
  type: str
  returned: success
  sample: cat /var/lib/ipyparallel/ipyparallel/notebook/password
certificate_problem:
  description: Why the certificate has to be issued; empty where the one that is there will do.
  type: str
  returned: success
  sample: the certificate is not for DNS:node1
key_problem:
  description:
    - Why a certificate that has to be issued has to have another key; empty where it is only for its names or its end.
  type: str
  returned: success
  sample: the cluster's authority has not signed the certificate
authority_problem:
  description: Why that of the authority has to be issued with it; empty where the one that is there will do.
  type: str
  returned: success
  sample: there is no authority yet
authority_names:
  description: What the authority may sign for, and what it has to.
  type: list
  elements: str
  returned: success
  sample: [DNS:localhost, DNS:node1, IP:10.0.0.5/32]
own_certificate:
  description: Whether the certificate is the user's own.
  type: bool
  returned: success
  sample: false
"""

import importlib
import shlex
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyparallel.cluster.plugins.module_utils import certificates
from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import (
    OWNED_ARGUMENT_SPEC,
    Ownership,
    ownership_of,
    read_text,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.hub import respawn
from ansible_collections.ipyparallel.cluster.plugins.module_utils.passwords import (
    Hasher,
    PasswordError,
    Paths,
    apply,
    check_password,
    make_plan,
    take,
)

NO_PROBLEM = {"certificate_problem": "", "key_problem": "", "authority_problem": "", "authority_names": []}


def load_hasher() -> Hasher:
    """Return what hashes passwords for Jupyter; only the cluster's Python has it."""
    return t.cast("Hasher", importlib.import_module("jupyter_server.auth"))


def problems(paths: Paths, params: dict[str, t.Any], ownership: Ownership) -> dict[str, t.Any]:
    """Return why the certificate of the notebook has to be issued, why with another key, and why that of the authority.

    Raises:
        OSError: what is there cannot be read.
    """
    authority, names = params["authority"], params["names"]
    if authority is None:
        return NO_PROBLEM
    try:
        key, certificate = read_text(paths.key, ownership), read_text(paths.certificate, ownership)
    except PermissionError as error:
        unreadable = f"{error.filename} cannot be read by its account"
        found = {"certificate_problem": unreadable, "key_problem": unreadable}
    else:
        found = {
            "certificate_problem": certificates.problem(certificate, key, names, params["renewal_days"], authority),
            "key_problem": certificates.problem(certificate, key, [], 0, authority),
        }
    allowed = certificates.permitted_names(authority) | {certificates.subtree(name) for name in names}
    return {
        **found,
        "authority_problem": certificates.authority_problem(authority, names, params["valid_days"]),
        "authority_names": sorted(allowed),
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "password": {"type": "str", "no_log": True},
            "python": {"type": "path", "required": True},
            "names": {"type": "list", "elements": "str", "default": []},
            "authority": {"type": "str"},
            "renewal_days": {"type": "int", "default": 30},
            "valid_days": {"type": "int", "default": 825},
            **OWNED_ARGUMENT_SPEC,
        },
        supports_check_mode=True,
    )
    params = module.params
    password = take(module, "password")
    if password is not None:
        try:
            check_password(password)
        except PasswordError as error:
            module.fail_json(msg=str(error))
    ready = respawn(module, params["python"])
    hasher = load_hasher() if ready else None
    paths = Paths(params["directory"])
    try:
        ownership = ownership_of(module, "owner")
        plan = make_plan(paths, password, hasher, ownership)
        if not module.check_mode:
            apply(plan, paths, ownership)
        own = params["authority"] is None
        found = {**NO_PROBLEM, "certificate_problem": "" if own else "there is no software to look at it with yet"}
        if ready:
            found = problems(paths, params, ownership)
    except KeyError as error:
        module.fail_json(msg=f"owner or group of {paths.directory}: {error.args[0]}")
    except OSError as error:
        module.fail_json(msg=f"cannot keep the notebook's password, token and key in {paths.directory}: {error}")
    for warning in plan.warnings:
        module.warn(warning)
    result: dict[str, t.Any] = {
        "changed": plan.changed,
        "hash_file": paths.hash,
        "token_file": paths.token,
        "password_file": paths.password if plan.random else None,
        "command": f"cat {shlex.quote(paths.password)}" if plan.random else None,
        "own_certificate": own,
        **found,
    }
    if module._diff:
        result["diff"] = {"before_header": paths.directory, "after_header": paths.directory, **plan.diff}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
