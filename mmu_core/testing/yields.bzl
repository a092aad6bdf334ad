"""Runs tests a second time, with every walk yielding whenever it may."""

def yielding_tests(names):
    """For each cc_test of the package in `names`, a test NAME_yields.

    It runs the same program, which is not compiled again, with the clock of
    testing/hold_clock.h that leaps. For tests of code that lets go of mmu_lock
    in the middle. The program links testing/hold_clock (checked).
    """
    for name in names:
        native.sh_test(
            name = name + "_yields",
            size = "medium",
            srcs = ["//mmu_core/testing:run_yielding.sh"],
            args = ["$(location :%s)" % name],
            data = [":" + name],
        )
