"""fuzz_target: the two programs that feed a target."""

def fuzz_target(name, mutations = 20000, tags = []):
    """Makes NAME_test and NAME_fuzzer from the library NAME_target.

    NAME_test runs the corpus in corpus/NAME, and then `mutations` inputs made
    from it, the same in each run. NAME_fuzzer is libFuzzer's program; it links
    only with --config=fuzz, so builds of everything leave it out (tools/fuzz).
    """
    corpus = native.glob(["corpus/%s/*" % name], allow_empty = False)
    native.cc_test(
        name = name + "_test",
        size = "medium",
        args = [
            "--mutations=%d" % mutations,
            "tests/fuzz/corpus/" + name,
        ],
        data = corpus,
        tags = tags,
        deps = [
            ":" + name + "_target",
            ":replay_main",
        ],
    )
    native.cc_binary(
        name = name + "_fuzzer",
        testonly = True,
        linkopts = ["-fsanitize=fuzzer"],
        tags = ["manual"],
        deps = [
            ":" + name + "_target",
            ":libfuzzer_main",
        ],
    )
