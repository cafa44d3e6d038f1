# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import packages
from ansible_collections.ipyparallel.cluster.plugins.module_utils.packages import Flags, RequirementError
from hypothesis import given
from hypothesis import strategies as st

SECRET = "https://ada:hunter22@example.org/simple"

# ---- requirements


@pytest.mark.parametrize(
    ("given_text", "found"),
    [
        ("scipy", ["scipy"]),
        ("scipy,pandas>=2", ["scipy", "pandas>=2"]),
        ("pandas>=2,<3,scipy", ["pandas>=2,<3", "scipy"]),
        ("pandas >=2 , !=2.1, scipy ", ["pandas >=2,!=2.1", "scipy"]),
        ("dask[array,dataframe]>=2024,<2026,six", ["dask[array,dataframe]>=2024,<2026", "six"]),
        (
            "demo @ https://example.org/demo.whl,six ; os_name>'a'",
            ["demo @ https://example.org/demo.whl", "six ; os_name>'a'"],
        ),
        ("", []),
        (" , ", []),
        ([" scipy ", "", "pandas>=2,<3"], ["scipy", "pandas>=2,<3"]),
    ],
)
def test_requirements_as_a_text_and_as_a_list(given_text, found):
    assert packages.split_requirements(given_text) == found


@given(st.lists(st.sampled_from(["scipy", "pandas>=2,<3", "dask[array,bag]", "a_b~=1.0", "x==1,!=1.1"]), max_size=5))
def test_what_is_put_together_with_commas_comes_apart_again(requirements):
    assert packages.split_requirements(",".join(requirements)) == requirements


@pytest.mark.parametrize(
    ("requirement", "name"),
    [
        ("scipy", "scipy"),
        ("Sci_Py >= 1", "sci-py"),
        ("dask[array,bag]<3", "dask"),
        ("zope.interface~=5", "zope-interface"),
        ("demo @ https://example.org/demo.whl", "demo"),
        ('six ; python_version > "3"', "six"),
        ("git+https://example.org/x", ""),
        ("https://example.org/demo.whl", ""),
        ("/srv/wheels/demo.whl", ""),
        ("--requirement https://example.org/r.txt", ""),
        ("", ""),
    ],
)
def test_the_name_of_a_requirement(requirement, name):
    assert packages.name_of(requirement) == name


@pytest.mark.parametrize(
    ("first", "remembered", "merged"),
    [
        ([], ["scipy"], ["scipy"]),
        (["scipy"], ["scipy"], ["scipy"]),
        (["Pandas<3"], ["pandas>=2", "scipy"], ["Pandas<3", "scipy"]),
        (["pandas>=2", "pandas<3"], ["pandas"], ["pandas>=2", "pandas<3"]),
        (["https://a/x.whl"], ["https://a/y.whl", "https://a/x.whl"], ["https://a/x.whl", "https://a/y.whl"]),
    ],
)
def test_what_is_given_takes_the_place_of_what_is_remembered(first, remembered, merged):
    assert packages.merge_requirements(first, remembered) == merged


@pytest.mark.parametrize(
    ("requirements", "names"),
    [
        ([], ["nothing to install", "ipyparallel_install"]),
        (["six", "--pre"], ["--pre is an option", "ipyparallel_install_flags"]),
        (["six", "demo @ https://ada:hunter22@example.org/demo.whl"], ["address of demo", "NETRC"]),
        (["https://token1234@example.org/demo.whl"], ["address of a package"]),
    ],
)
def test_what_cannot_be_remembered_is_refused(requirements, names):
    with pytest.raises(RequirementError) as raised:
        packages.check_requirements(requirements)
    assert [name for name in names if name not in str(raised.value)] == []
    assert [secret for secret in ("hunter22", "token1234") if secret in str(raised.value)] == []


def test_an_ssh_login_is_no_secret():
    packages.check_requirements(["demo @ git+ssh://git@example.org/demo.git", "six"])
    assert packages.secrets_in(["git+ssh://git@example.org/demo.git"]) == set()
    assert packages.secrets_in([SECRET, "https://token1234@example.org"]) == {"ada:hunter22", "hunter22", "token1234"}


# ---- options


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ([], Flags()),
        (["--upgrade", "--pre"], Flags(("--upgrade", "--pre"))),
        (["--upgrade-package", "scipy", "-P=numpy"], Flags(("--upgrade-package", "scipy", "-P", "numpy"))),
        (["--index-url", SECRET], Flags((), (("UV_DEFAULT_INDEX", SECRET),), True)),
        ([f"-i={SECRET}"], Flags((), (("UV_DEFAULT_INDEX", SECRET),), True)),
        (["--extra-index-url=a", "--index", "b"], Flags((), (("UV_INDEX", "a b"),), True)),
        (["-f", "/srv/a", "--find-links=/srv/b"], Flags((), (("UV_FIND_LINKS", "/srv/a,/srv/b"),), True)),
        (["--no-index"], Flags(("--no-index",), (), True)),
    ],
)
def test_options(words, flags):
    assert packages.read_flags(words) == flags


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--target", "/x"], ["--target is not taken", "--index-url"]),
        (["--target=/secret"], ["--target is not taken"]),
        (["--pre=yes"], ["--pre is not taken"]),
        (["--pre", SECRET], ["what is no option is not taken"]),
        (["--index-url"], ["--index-url has no value"]),
        (["--index-url="], ["--index-url has no value"]),
    ],
)
def test_options_that_are_not_taken(words, names):
    with pytest.raises(RequirementError) as raised:
        packages.read_flags(words)
    assert [name for name in ["ipyparallel_install_flags", *names] if name not in str(raised.value)] == []
    assert "secret" not in str(raised.value)
    assert "hunter22" not in str(raised.value)


# ---- what uv says


def test_what_changes():
    output = """\
Using Python 3.11.2 environment at: /opt
Resolved 2 packages in 205ms
Would install 2 packages
 - psutil==7.2.2
 + psutil==6.1.1
 ~ six==1.17.0
 + demo==1.0 (from file:///srv/demo-1.0-py3-none-any.whl)
"""
    assert packages.changes_in(output) == ["- psutil==7.2.2", "+ psutil==6.1.1", "~ six==1.17.0", "+ demo==1.0"]
    assert packages.changes_in("Checked 1 package in 6ms\nWould make no changes\n") == []


# ---- the lock of the operator's

ROLE = Path(__file__).parents[4] / "roles" / "environment" / "files"
NEEDED = "# what there has to be\nipyparallel ==9.2.*\npyzmq\n"
GOOD = """\
# compiled
ipyparallel==9.3.1 ; sys_platform != 'win32' \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via -r requirements.in
PyZMQ[x]==27.1.0 --hash=sha256:cc
demo @ https://example.org/demo-1.0.whl --hash=sha256:dd
"""


def test_the_collections_own_lock_is_one():
    lock, needed = ((ROLE / name).read_text() for name in ("requirements.txt", "requirements.in"))
    assert packages.lock_problem(lock, needed) == ""


def test_a_lock():
    assert packages.lock_problem(GOOD, NEEDED) == ""


@pytest.mark.parametrize(
    ("lock", "names"),
    [
        ("", ["has no ipyparallel, pyzmq", "uv pip compile"]),
        (GOOD.replace("PyZMQ[x]==", "other=="), ["has no pyzmq,"]),
        (f"{GOOD}scipy\n", ["'scipy' is not pinned"]),
        (f"{GOOD}scipy>=1 --hash=sha256:aa\n", ["'scipy>=1' is not pinned"]),
        (f"{GOOD}scipy==1.* --hash=sha256:aa\n", ["'scipy==1.*' is not pinned"]),
        (f"{GOOD}scipy==1,<2 --hash=sha256:aa\n", ["'scipy==1,<2' is not pinned"]),
        (f"{GOOD}scipy==1.0\n", ["'scipy==1.0' has no hash"]),
        (f"{GOOD}https://example.org/x.whl --hash=sha256:aa\n", ["is not pinned"]),
        (f"--index-url=https://ada:hunter22@example.org\n{GOOD}", ["--index-url is no package"]),
        (f"-r other.txt\n{GOOD}", ["-r is no package"]),
        (GOOD.replace("==9.3.1", "==10.0.0"), ["ipyparallel 10.0.0", "made for 9"]),
        (GOOD.replace("==9.3.1", "@ https://a/b.whl"), ["ipyparallel from an address"]),
        ("\0\1", ["is not pinned"]),
    ],
)
def test_what_is_no_lock(lock, names):
    problem = packages.lock_problem(lock, NEEDED)
    assert [name for name in names if name not in problem] == []
    assert "hunter22" not in problem
