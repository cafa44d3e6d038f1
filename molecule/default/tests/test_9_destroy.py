# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`destroy` leaves the notebooks and the account that owns them, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import CLIENT, connected
from remote import Operator

EVERY = ["node1", "node2", "node3", "node4"]
# What was written since before the first check: files, for directories have changed by what came and went in them.
# What SSH, sudo, Ansible and the journal leave is not the cluster's.
CHANGED = r"""
find /etc /home /opt /root /run /srv /tmp /usr /var /dev/shm -xdev -not -type d -cnewer /run/before_check -not -regex \
'/home/\(ansible\|plain\)/\(\.ansible\|\.cache\).*\|/var/lib/\(sudo\|systemd\|private\)/.*\|/var/log/.*\|/run/\(sudo\|systemd\|log\|utmp\|user\|udev\|dbus\).*\|/tmp/systemd.*'
"""
ACCOUNTS = {f"/etc/{name}{old}" for name in ("passwd", "group", "shadow", "gshadow", "subuid", "subgid") for old in ("", "-")}
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


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path: Path = tmp_path_factory.mktemp("more") / "more.yml"
    path.write_text(MORE)
    return ["--inventory", str(path)]
