"""A client: its name, its rows and its train.yaml are the settings of its own SuperNode, never the server's."""

import functools
import tempfile
from pathlib import Path

from flwr.clientapp import ClientApp

from expunge.methods.deployment import join
from expunge.pipeline.clients import sums_as_text

app = ClientApp()


@functools.cache
def client(train, name, rows):
    """The client of these settings. Of its rows under the last model it says sums, and nothing of a single one."""
    folder = Path(tempfile.mkdtemp())
    return join(train, name, rows, folder, lambda model, own: sums_as_text(model, "retain", own))


def act(message, context):
    """Answer a message."""
    config = context.node_config
    return client(str(config["train"]), str(config["client"]), str(config["rows"]))(message, context)


app.train()(act)
app.query("name")(act)
app.query("read")(act)
