"""`python -m expunge`."""

try:
    from expunge.cli import leave, start
except KeyboardInterrupt:
    import os

    os.write(2, b"expunge: Interrupted.\n")
    os._exit(130)

if __name__ == "__main__":
    try:
        start()
    except KeyboardInterrupt:
        leave()
