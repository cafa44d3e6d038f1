# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Compare the hosts of a cluster by what their preflight found. Nothing is sent to any host."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.ipyparallel.cluster.plugins.module_utils.comparison import (
    ComparisonError,
    check_certificates,
    check_controller_is_there,
    check_machines,
    check_phases,
    check_pool_hosts,
    check_pythons,
    clock_difference,
    controller_place,
    memory_remarks,
    pools_of,
    remarks,
)

ARGUMENT_SPEC = {
    "controller": {"type": "str", "required": True},
    "defined": {"type": "list", "elements": "str", "required": True},
    "begun": {"type": "list", "elements": "str", "required": True},
    "left": {"type": "list", "elements": "str", "required": True},
    "found": {"type": "dict", "required": True},
    "remembered": {"type": "dict", "default": {}},
    "changed": {"type": "dict", "default": {}},
    "roles": {"type": "dict", "default": {}},
    "pools": {"type": "list", "elements": "dict", "default": []},
    "tags": {"type": "list", "elements": "str", "default": ["all"]},
    "skipped_tags": {"type": "list", "elements": "str", "default": []},
}


class ActionModule(ActionBase):
    """Action ``ipyparallel.cluster.compare_hosts``; its documentation is in the module of this name."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Return where the controller is to be looked for; warn of what differs."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validation, given = self.validate_argument_spec(ARGUMENT_SPEC)
        controller, defined = given["controller"], given["defined"]
        found = {host: given["found"][host] for host in given["left"] if host in given["found"]}
        own = found.get(controller, {})
        versions = given["remembered"].get("versions") or own.get("versions") or {}
        # a run for all hosts may move them all to another Python; one for some has to fit those that it leaves out
        remembered = versions.get("python") if set(defined) - set(given["begun"]) else None
        identity = own.get("controller") or given["remembered"].get("identity") or {}
        try:
            check_controller_is_there(controller, given["begun"], given["left"], given["found"])
            check_machines(found, defined)
            check_certificates(found)
            check_phases(found, given["tags"], given["skipped_tags"])
            check_pythons(found, controller, remembered)
            place = controller_place(controller, defined, identity, own.get("outward_address"))
            check_pool_hosts(given["pools"], [host for host, roles in given["roles"].items() if "engines" in roles])
        except ComparisonError as error:
            raise AnsibleActionFail(str(error)) from None
        later = given["changed"] or own.get("remembered") or given["remembered"].get("remembered") or {}
        pools = pools_of(found, given["roles"], later)
        said = [*remarks(found), *memory_remarks(found, pools)]
        for remark in said:
            Display().warning(remark)
        return {
            **result,
            "changed": False,
            **place,
            "pools": pools,
            "remarks": said,
            "clocks_differ": round(clock_difference(found)[0], 3),
        }
