#include "server/config/host_cpu.h"

#include <fstream>
#include <string>

#include "gtest/gtest.h"

namespace mmud {
namespace {

mmu::ItlbMultihit WithFile(const std::string& text) {
  const std::string path = ::testing::TempDir() + "/itlb_multihit";
  std::ofstream(path) << text;
  return ReadItlbMultihit(path);
}

TEST(HostCpuTest, TheKernelsWordDecides) {
  EXPECT_EQ(WithFile("Not affected\n"), mmu::ItlbMultihit::kNo);
  EXPECT_EQ(WithFile("KVM: Mitigation: Split huge pages\n"),
            mmu::ItlbMultihit::kYes);
  EXPECT_EQ(WithFile("KVM: Vulnerable\n"), mmu::ItlbMultihit::kYes);
  EXPECT_EQ(WithFile("Processor vulnerable\n"), mmu::ItlbMultihit::kYes);
}

TEST(HostCpuTest, AKernelThatSaysNothingMeansNo) {
  EXPECT_EQ(WithFile(""), mmu::ItlbMultihit::kNo);
  EXPECT_EQ(ReadItlbMultihit("/nonexistent"), mmu::ItlbMultihit::kNo);
}

}  // namespace
}  // namespace mmud
