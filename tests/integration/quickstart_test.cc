// The main job on each MMU: at the end guest memory and its copy are equal.

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/child_process.h"

namespace mmud::integration {
namespace {

class QuickstartTest : public ::testing::TestWithParam<const char*> {};

TEST_P(QuickstartTest, EndsWithEqualCopies) {
  const ScratchDirectory directory;
  const ProgramResult result =
      RunProgram({"client/quickstart/quickstart", "--mmud=server/mmud",
                  "--trace-dir=traces", "--memory=256MiB",
                  absl::StrCat("--mmu=", GetParam())},
                 directory.File("quickstart"));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out,
              ::testing::EndsWith(
                  "guest memory and copy are equal: 268435456 bytes\n"));
}

INSTANTIATE_TEST_SUITE_P(Mmus, QuickstartTest,
                         ::testing::Values("tdp", "tdp_shadow", "shadow",
                                           "nested"));

}  // namespace
}  // namespace mmud::integration
