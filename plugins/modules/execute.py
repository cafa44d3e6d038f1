#!/usr/bin/python
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run code or a shell command on engines of a running cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: execute
short_description: Run code or a shell command on engines of a running ipyparallel cluster
version_added: 0.1.0
author: The ipyparallel.cluster authors (@ipyparallel)
description:
  - Runs Python code in the namespace of engines, or a command in a shell on their hosts, on all or some engines at once
    or load-balanced, and brings back what each has written and returned.
  - Runs on the controller host, with nothing but the client half. Code is compiled before it is sent.
options:
  code:
    description:
      - Python code, as a cell of a notebook has it, hence with IPython's magics and C(await). The value of its last
        expression is the result.
      - Code with C(await) runs in a thread and an event loop of its own, which end with it.
      - Code that raises C(SystemExit) without a code, or with 0, has ended well.
    type: str
  name:
    description: What the code is called in a message, such as the name of its file.
    type: str
    default: the code
  shell:
    description: A command for C(/bin/sh). It runs as the cluster's account, in the directory of the engine.
    type: str
  balanced:
    description:
      - With 0, it runs once on each of the engines. With a number, it runs so many times, each on whichever of the
        engines is free.
    type: int
    default: 0
  limit:
    description:
      - How long to wait, in seconds. What is under way then goes on; it is named and the module fails.
    type: float
    default: 300.0
  fail:
    description: Whether an error of an engine is a failure of the module; otherwise it is only returned.
    type: bool
    default: true
extends_documentation_fragment:
  - ipyparallel.cluster.hub
  - ipyparallel.cluster.selection
  - ipyparallel.cluster.attributes
attributes:
  check_mode:
    support: full
    details:
      - Compiles the code and chooses the engines, and sends nothing.
  diff_mode:
    support: none
  idempotent:
    support: none
"""

EXAMPLES = r"""
- name: Set a variable on all engines
  ipyparallel.cluster.execute:
    connector: /var/lib/ipyparallel/ipyparallel/connector/ipcontroller-client.json
    python: /opt/ipyparallel/ipyparallel/current/bin/python
    code: a = 5

- name: Look at the memory of two hosts
  ipyparallel.cluster.execute:
    connector: /var/lib/ipyparallel/ipyparallel/connector/ipcontroller-client.json
    python: /opt/ipyparallel/ipyparallel/current/bin/python
    shell: free --mega
    hosts: [node2, node3]
"""

RETURN = r"""
results:
  description:
    - What came of it, for each engine, or for each time where it is load-balanced. C(status) is V(ok), V(error) or
      V(unfinished); C(result) is the value of the last expression as Python writes it; C(rc) is that of the command;
      C(traceback) is the engine's own. Texts end after 100,000 characters, and say so.
  type: list
  elements: dict
  returned: when code was sent
  sample:
    - id: 0
      host: node1
      pool: default
      core: 0
      status: ok
      stdout: "hello\n"
      stderr: ""
      result: "42"
      rc: null
      error: ""
      traceback: ""
      seconds: 0.01
engines:
  description: The engines that were chosen, by id.
  type: list
  elements: int
  returned: success
  sample: [0, 1]
"""

import typing as t

from ansible_collections.ipyparallel.cluster.plugins.module_utils.execution import ExecutionError, check_code, execute
from ansible_collections.ipyparallel.cluster.plugins.module_utils.hub import (
    HUB_ARGUMENT_SPEC,
    HubError,
    act_as,
    connect,
    registered,
    respawn,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.quiet import QuietModule
from ansible_collections.ipyparallel.cluster.plugins.module_utils.selection import (
    SELECTION_ARGUMENT_SPEC,
    SelectionError,
    select,
)


def check(params: dict[str, t.Any]) -> None:
    """Refuse what cannot be sent.

    Raises:
        ExecutionError: it cannot; says why.
    """
    if params["limit"] <= 0:
        raise ExecutionError(f"{params['limit']:g} s is no time to wait: set limit to more than 0")
    if params["balanced"] < 0:
        raise ExecutionError(f"{params['balanced']} is not a number of times: set balanced to 0 or more")
    if not (params["code"] if params["shell"] is None else params["shell"]).strip():
        raise ExecutionError("there is nothing to run: give code, a script or a shell command that is not empty")
    if params["code"] is not None:
        check_code(params["code"], params["name"])


def in_words(results: list[dict[str, t.Any]]) -> str:
    """Return what went wrong, empty where nothing did."""
    wrong = [result for result in results if result["status"] != "ok"]
    if not wrong:
        return ""
    said = [f"engine {'?' if one['id'] is None else one['id']} ({one['host'] or '?'}): {one['error']}" for one in wrong]
    more = f"; and {len(said) - 10} more" if said[10:] else ""
    return f"{len(wrong)} of {len(results)} did not end well: {'; '.join(said[:10])}{more}"


class Module(QuietModule):
    """A module that writes no code to the log of the host."""

    logged = ("ids", "hosts", "pools", "balanced", "limit")


def main() -> None:
    """Run the module."""
    module = Module(
        argument_spec={
            **HUB_ARGUMENT_SPEC,
            **SELECTION_ARGUMENT_SPEC,
            "code": {"type": "str"},
            "name": {"type": "str", "default": "the code"},
            "shell": {"type": "str"},
            "balanced": {"type": "int", "default": 0},
            "limit": {"type": "float", "default": 300.0},
            "fail": {"type": "bool", "default": True},
        },
        mutually_exclusive=[["code", "shell"]],
        required_one_of=[["code", "shell"]],
        supports_check_mode=True,
    )
    params = module.params
    if not respawn(module, params["python"]):
        module.exit_json(changed=True, msg="would run it on the engines of a cluster that is to be made")
    try:
        check(params)
        act_as(params["account"])
        client = connect(params["connector"], params["timeout"])
    except (ExecutionError, HubError) as error:
        module.fail_json(msg=str(error))
    try:
        engines = select(registered(client), **{name: params[name] for name in SELECTION_ARGUMENT_SPEC})
        ids = [engine["id"] for engine in engines]
        if module.check_mode:
            module.exit_json(changed=True, engines=ids)
        given = {name: params[name] for name in ("code", "shell", "balanced", "limit")}
        results = execute(client, engines, **given)
    except SelectionError as error:
        module.fail_json(msg=str(error))
    finally:
        client.close(linger=1)
    result = {"changed": True, "engines": ids, "results": results}
    problem = in_words(results)
    if problem and params["fail"]:
        module.fail_json(msg=problem, **result)
    module.exit_json(**result, problem=problem)


if __name__ == "__main__":
    main()
