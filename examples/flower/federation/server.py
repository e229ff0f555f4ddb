"""The server: it waits for the clients, trains with them, and writes the model to its own folder."""

from pathlib import Path

from flwr.serverapp import ServerApp

from expunge.methods.deployment import serve

app = ServerApp()


@app.main()
def main(grid, context):
    """Train as the server's train.yaml says."""
    config = context.run_config
    keys = {"public": config["public"], "parties": config["parties"]}
    serve(config["train"], grid, int(config["clients"]), Path(config["out"]), **keys)
