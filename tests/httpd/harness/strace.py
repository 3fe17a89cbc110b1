# SPDX-License-Identifier: Apache-2.0
"""What processes ask of the kernel."""

import signal
import subprocess


def strace(server, run, log, option):
    """what strace writes to LOG of the server's children while run() runs.
    Whoever dies in there must be gone when it returns: told to end while it has
    not yet seen the end of all threads, strace waits for the first of them,
    which ends when it has seen the others: never."""
    pids = [word for pid in server.children() for word in ("-p", str(pid))]
    tracer = subprocess.Popen(["strace", "-f", option, "-o", str(log)] + pids,
                              stderr=subprocess.PIPE, text=True)
    try:
        for _ in server.children():
            assert "attached" in tracer.stderr.readline()
        run()
    finally:
        tracer.send_signal(signal.SIGINT)
        try:
            tracer.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            tracer.kill()
            tracer.communicate()
            raise
    return log.read_text()
