"""A client: its name, its rows and its train.yaml are the settings of its own SuperNode, never the server's.

In Flower's simulation nodes have numbers alone: each is that client of the data that the server's train.yaml names.
"""

import functools
import tempfile
from pathlib import Path

from flwr.clientapp import ClientApp

from expunge.methods.deployment import join, join_simulated
from expunge.pipeline.clients import sums_as_text

app = ClientApp()


@functools.cache
def client(train, name, rows, secret, key):
    """The client of these settings. secret: the clients' key for sums of ciphertexts, key: its own, by which it signs,
    if there are any. Of its rows under the last model it says sums, and nothing of a single one."""
    return join(train, name, rows, Path(tempfile.mkdtemp()), read, secret=secret, key=key)


@functools.cache
def simulated(train, number):
    """The client of this number in a simulation."""
    return join_simulated(train, number, Path(tempfile.mkdtemp()), read)


def read(model, own):
    """The sums of the client's figures under a model."""
    return sums_as_text(model, "retain", own)


def act(message, context):
    """Answer a message."""
    config = context.node_config
    if "partition-id" in config:
        return simulated(str(context.run_config["train"]), int(config["partition-id"]))(message, context)
    names = ("train", "client", "rows", "secret", "key")
    return client(*(str(config.get(name, "")) for name in names))(message, context)


app.train()(act)
app.query("name")(act)
app.query("read")(act)
app.query("open")(act)
