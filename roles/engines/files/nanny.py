# Managed by Ansible (collection ipyparallel.cluster): changes are overwritten.
"""ipyparallel's nanny, with options of its connections for which it has no setting: numbers and values, as JSON."""

import json
import runpy
import sys

import zmq

OPTIONS = json.loads(sys.argv[1])
make = zmq.Context.__init__


def make_with_options(context, *arguments, **options):
    """Make a context whose sockets have the options."""
    make(context, *arguments, **options)
    for option, value in OPTIONS:
        context.setsockopt(option, value)


zmq.Context.__init__ = make_with_options
runpy.run_module("ipyparallel.engine.nanny", run_name="__main__", alter_sys=True)
