# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What users of the cluster do while it suffers; runs on the controller's host with the cluster's own Python.

Takes one JSON object a line (``{"do": name, ...}``) and answers each with one. It holds two clients for as long as it
runs, whatever happens to the cluster: the old client, and the one that submits load-balanced work all the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import sys
import threading
import time
import traceback
from typing import Any

import ipyparallel as ipp
from ipyparallel.serialize import can

CONNECTOR = sys.argv[1]
MOST_OPEN = 500


# ---- what engines run; small, and known to them without this file


def work(number: int) -> int:
    import os
    import time

    time.sleep(0.04)
    # one line for each time that the task is done, on the host: the engine may end
    file = os.open("/var/tmp/chaos-tasks", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(file, f"{number}\n".encode())
    os.close(file)
    return number


def look(name: str) -> list[Any]:
    import os

    return [os.uname().nodename, os.getpid(), globals().get(name)]


def children(count: int) -> list[int]:
    import subprocess
    import sys

    # neither of them would end by itself with the engine; the second takes no hint
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(10000)"
    return [subprocess.Popen([sys.executable, "-c", code], start_new_session=True).pid for _number in range(count)]


def long_work(seconds: float) -> list[Any]:
    import os
    import time

    time.sleep(seconds)
    return [os.uname().nodename, os.getpid()]


def wedge() -> None:
    """From now on, load-balanced work that comes to this engine vanishes; direct work is done."""
    from IPython import get_ipython

    kernel = get_ipython().kernel
    scheduler = kernel._shell_parent_ident.get()[0]
    should_handle = kernel.should_handle
    kernel.should_handle = lambda stream, message, idents: (
        idents[0] != scheduler and should_handle(stream, message, idents)
    )


for function in (work, look, children, long_work, wedge):
    function.__module__ = "__main__"


# ---- clients


def new_client() -> ipp.Client:
    return ipp.Client(connection_info=CONNECTOR, timeout=2)


class Load:
    """Submits *rate* load-balanced tasks a second, whatever has become of those before; counts what becomes of them."""

    def __init__(self, rate: float) -> None:
        self.pause = 1 / rate
        self.client = new_client()
        self.view = self.client.load_balanced_view()
        self.view.retries = 5
        self.lock = threading.Lock()
        self.open: dict[int, Any] = {}
        self.submitted = 0
        self.results = 0
        self.errors: dict[str, int] = {}
        self.last = time.monotonic()
        self.going = True
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        due = time.monotonic()
        while True:
            for number, result in list(self.open.items()):
                if result.ready():
                    self.take(number, result)
            try:
                if self.going and time.monotonic() >= due and len(self.open) < MOST_OPEN:
                    due = max(due + self.pause, time.monotonic() - 1)
                    self.open[self.submitted] = self.view.apply_async(work, self.submitted)
                    self.submitted += 1
            except Exception as error:  # noqa: BLE001 - NoEnginesRegistered, while there are none
                self.count(type(error).__name__ + " at submission")
                due = time.monotonic() + 0.1
            time.sleep(0.005)

    def take(self, number: int, result: Any) -> None:
        try:
            if result.get(0) != number:
                self.count("wrong result")
            self.results += 1
        except Exception as error:  # noqa: BLE001
            self.count(str(getattr(error, "ename", type(error).__name__)))
        self.last = time.monotonic()
        del self.open[number]
        # what a client keeps of what is done, it keeps for ever
        for ident in result.msg_ids:
            for kept in (self.client.results, self.client.metadata):
                with contextlib.suppress(KeyError):
                    del kept[ident]
            self.client.history.remove(ident)

    def count(self, error: str) -> None:
        self.errors[error] = self.errors.get(error, 0) + 1

    def report(self) -> dict[str, Any]:
        return {
            "submitted": self.submitted,
            "results": self.results,
            "errors": dict(self.errors),
            "open": sorted(self.open),
            "open_messages": [ident for number in sorted(self.open) for ident in self.open[number].msg_ids],
            "idle": time.monotonic() - self.last,
        }

    def drain(self, seconds: float) -> dict[str, Any]:
        """Submit no more, wait until all is done or nothing has come for *seconds*; give up the rest, and go on."""
        self.going = False
        started = time.monotonic()
        while self.open and time.monotonic() - max(self.last, started) < seconds:
            time.sleep(0.02)
        report = self.report()
        self.view = self.client.load_balanced_view()
        self.view.retries = 5
        self.open.clear()
        self.going = True
        return report


class Agent:
    def __init__(self) -> None:
        self.old = new_client()
        self.load: Load | None = None
        self.kept: dict[str, Any] = {}

    # -- load

    def do_load(self, rate: float) -> None:
        self.load = Load(rate)

    def do_report(self) -> Any:
        assert self.load
        return self.load.report()

    def do_drain(self, seconds: float) -> Any:
        assert self.load
        return self.load.drain(seconds)

    # -- the cluster as a client sees it

    def do_idents(self) -> dict[int, str]:
        """What the hub has told the old client."""
        return dict(self.old._engines)

    def do_push(self, name: str) -> list[Any]:
        """Give each engine a variable of its own."""
        for number in self.old.ids:
            self.old[number].push({name: number}, block=False)
        return self.see(self.old, name, 10)

    def see(self, client: ipp.Client, name: str, limit: float) -> list[Any]:
        found = client[:].apply_async(look, name).get(timeout=limit)
        return [[number, *seen] for number, seen in zip(client.ids, found, strict=True)]

    def do_probe(self, expected: int, name: str, old: bool, limit: float) -> dict[str, Any]:
        """Look whether the cluster is whole: for a new client, or the old one."""
        started = time.monotonic()
        client = self.old if old else None
        answer: dict[str, Any] = {"whole": False}
        try:
            client = client or new_client()
            answer["idents"] = [client._engines[number] for number in client.ids]
            if len(client.ids) != expected:
                answer["why"] = f"{len(client.ids)} engines: {client.ids}"
                return answer
            answer["seen"] = self.see(client, name, limit)
            results = {number: client.load_balanced_view([number]).apply_async(look, name) for number in client.ids}
            for number, result in results.items():
                result.wait(max(0.0, limit - (time.monotonic() - started)))
                if not result.ready():
                    answer["why"] = f"no load-balanced work on {number}, {client._engines.get(number)}"
                    answer["wedged"] = number
                    return answer
                if result.get(0) != answer["seen"][client.ids.index(number)][1:]:
                    answer["why"] = f"load-balanced work for {number} was done by {result.get(0)}"
                    return answer
            answer["whole"] = True
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not whole
            answer["why"] = f"{type(error).__name__}: {error}"[:300]
        finally:
            answer["took"] = round(time.monotonic() - started, 2)
            if client and client is not self.old:
                client.close(linger=0)
        return answer

    def do_all_engines(self, limit: float) -> dict[str, Any]:
        """Have all engines do something, and say how it ended and how long that took."""
        started = time.monotonic()
        try:
            self.old[:].apply_async(look, "").get(timeout=limit)
            ended = "done"
        except Exception as error:  # noqa: BLE001
            ended = str(getattr(error, "ename", type(error).__name__))
        return {"ended": ended, "took": time.monotonic() - started}

    def do_children(self, target: int, count: int) -> Any:
        return self.old[target].apply_async(children, count).get(timeout=10)

    def do_wedge(self, target: int) -> None:
        self.old.load_balanced_view([target]).apply_async(wedge).get(timeout=10)

    def do_begin_long(self, target: int, seconds: float) -> None:
        self.kept["long"] = self.old[target].apply_async(long_work, seconds)

    def do_end_long(self, limit: float) -> Any:
        return self.kept["long"].get(timeout=limit)

    def do_limit_files(self, pid: int, most: int) -> int:
        """Let a process of this account have so many open files; return how many it might have before."""
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, hard))
        return soft

    def do_metrics(self, port: int, path: str) -> str:
        import urllib.request

        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return str(answer.read().decode())


def main() -> None:
    # one loop for all clients of this thread, as in a notebook
    asyncio.set_event_loop(asyncio.new_event_loop())
    can(work)  # the first time is not safe in two threads at once: KeyError: 'numpy.ndarray'
    agent = Agent()
    out = sys.stdout
    sys.stdout = sys.stderr
    print(json.dumps({"ready": True}), file=out, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"answer": getattr(agent, f"do_{request.pop('do')}")(**request)}
        except BaseException as error:  # noqa: BLE001
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer, default=str), file=out, flush=True)


if __name__ == "__main__":
    main()
