# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`destroy` leaves the notebooks and the account that owns them, and nothing else."""

from __future__ import annotations

from conftest import EVERY, connected
from remote import Operator

# What was written since before the first check: files, for directories have changed by what came and went in them.
# What SSH, sudo, Ansible and the journal leave is not the cluster's; nor is the cache of uv, which all clusters share.
CHANGED = r"""
find /etc /home /opt /root /run /srv /tmp /usr /var /dev/shm -xdev -not -type d -cnewer /run/before_check -not -regex \
'/home/\(ansible\|plain\)/\(\.ansible\|\.cache\).*\|/root/\.cache/uv/.*\|/var/lib/\(sudo\|systemd\|private\)/.*\|/var/log/.*\|/run/\(motd\|sudo\|systemd\|log\|utmp\|user\|udev\|dbus\).*\|/tmp/systemd.*'
"""
DATABASE = ("passwd", "group", "shadow", "gshadow", "subuid", "subgid")
ACCOUNTS = {f"/etc/{name}{old}" for name in DATABASE for old in ("", "-")} | {"/etc/.pwd.lock"}
HOME = "/home/ipyparallel"
LOOK = """
systemctl list-units --all --plain --no-legend 'ipyparallel*'
systemctl list-unit-files --no-legend 'ipyparallel*'
find /etc/systemd /run/systemd /usr/lib/systemd -name '*ipyparallel*'
/usr/sbin/nft list tables | grep ipyparallel
ss --no-header --tcp --udp --listening --numeric | grep -v ':22 '
ps -o pid,args -u ipyparallel --no-headers
ls -d /opt/ipyparallel /etc/ipyparallel /var/lib/ipyparallel /var/log/ipyparallel /run/ipyparallel* 2>/dev/null
true
"""


def test_destroy_leaves_the_notebooks_only(operator: Operator, more: list[str]) -> None:
    operator.shell("node1", f"echo mine > {HOME}/notebooks/mine.ipynb", "ipyparallel")
    run = operator.ok("destroy", *more)
    assert f"Your notebooks are still in {HOME}/notebooks on node1" in run.said
    assert operator.shells(EVERY, LOOK) == dict.fromkeys(EVERY, "")
    assert operator.shell("node1", f"cat {HOME}/notebooks/mine.ipynb") == "mine\n"

    left = {node: {*text.splitlines()} - ACCOUNTS for node, text in operator.shells(EVERY, CHANGED).items()}
    assert {node: sorted(path for path in paths if not path.startswith(HOME)) for node, paths in left.items()} == {
        node: [] for node in EVERY
    }
    assert "no Controller could be found" in connected(operator)
    profiles = [path for path in operator.home.rglob("*") if path.name == "profile_ipyparallel"]
    assert profiles == []


def test_destroy_again_changes_nothing(operator: Operator, more: list[str]) -> None:
    assert operator.ok("destroy", *more).changed == dict.fromkeys(EVERY, 0)
    assert not operator.status(*more)["deployed"]
