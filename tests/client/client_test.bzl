"""client_test: a test in Python that runs mmuctl against the daemon."""

def client_test(name, data = []):
    # sh_test, since Bazel's py_test asks the network for its rules.
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
        # Sockets, signals and terminals of its own.
        tags = ["no-sandbox"],
    )
