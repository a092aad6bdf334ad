#include "server/base/labels.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"

namespace mmud {
namespace {

std::string FieldOf(const Labels& labels) {
  const absl::Status status = CheckLabels(labels, "vm.labels");
  if (status.ok()) return "ok";
  EXPECT_EQ(mmu::DetailOf(status).reason, mmu::Reason::kInvalidLabel);
  return mmu::DetailOf(status).field;
}

TEST(LabelsTest, KeysAndValuesHaveTheirLetters) {
  EXPECT_EQ(FieldOf({}), "ok");
  EXPECT_EQ(FieldOf({{"a", ""}, {"team.example/owner_1-x", "Net/Ops-3.b_C"}}),
            "ok");
  EXPECT_EQ(FieldOf({{std::string(63, 'a'), std::string(63, 'B')}}), "ok");
  for (const std::string& key :
       {std::string(), std::string("A"), std::string("1a"), std::string("-a"),
        std::string("a b"), std::string(64, 'a'), std::string("a\xc3\xa4")}) {
    EXPECT_EQ(FieldOf({{key, "x"}}), "vm.labels") << key;
  }
  for (const std::string& value : {std::string(" "), std::string("x=y"),
                                   std::string(64, 'a'), std::string("\n")}) {
    EXPECT_EQ(FieldOf({{"a", "fine"}, {"b", value}}), "vm.labels[b]") << value;
  }
}

TEST(LabelsTest, ThereMayBe64) {
  Labels labels;
  for (int i = 0; i < 64; ++i) labels[absl::StrCat("key-", i)] = "x";
  EXPECT_EQ(FieldOf(labels), "ok");
  labels["one-more"] = "x";
  EXPECT_EQ(FieldOf(labels), "vm.labels");
}

}  // namespace
}  // namespace mmud
