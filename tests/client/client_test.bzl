"""client_test: a test in Python that runs mmuctl against the daemon."""

def client_test(name, data = []):
    # An sh_test, since Bazel's py_test would load its rules from the network.
    native.sh_test(
        name = name,
        size = "medium",
        srcs = [name + ".py"],
        data = data + [
            "daemon.py",
            "//client/mmuctl",
            "//server:mmud",
            "//traces",
        ],
        # Not in the sandbox: the test makes sockets, signals and terminals.
        tags = ["no-sandbox"],
    )
