#include "tests/model/operation.h"

#include <array>
#include <cstddef>

#include "absl/strings/str_format.h"

namespace mmu::testing {
namespace {

using Kind = Operation::Kind;

// By kind: the name, and how often it is chosen, in parts of the sum.
struct KindRow {
  const char* name;
  uint32_t weight;
};
constexpr std::array<KindRow, Operation::kKinds> kRows = {{
    {"kRead", 1000},
    {"kWrite", 1600},
    {"kExec", 300},
    {"kSweep", 60},
    {"kCreate", 40},
    {"kDelete", 8},
    {"kMove", 10},
    {"kStart", 40},
    {"kStop", 20},
    {"kSeal", 60},
    {"kPeek", 20},
    {"kClear", 60},
    {"kCopy", 50},
    {"kAcknowledge", 40},
    {"kAckPages", 40},
    {"kTakeOver", 8},
    {"kSplit", 16},
    {"kRecover", 16},
    {"kAge", 30},
    {"kDropTlb", 200},
    {"kZapAll", 4},
    {"kHostWrite", 200},
    {"kHostUnmap", 20},
    {"kLimit", 4},
    {"kNxHuge", 4},
    {"kNxRecover", 8},
    {"kUseRead", 1600},
    {"kUseWrite", 1600},
    {"kUseExec", 400},
    {"kMapPage", 300},
    {"kUnmapPage", 60},
    {"kProtectPage", 200},
    {"kCleanPage", 100},
    {"kMapLarge", 10},
    {"kDemote", 20},
    {"kShareTable", 30},
    {"kProtectLink", 30},
    {"kUnlink", 4},
    {"kNewSpace", 2},
    {"kReclaim", 2},
    {"kInvalidatePage", 300},
    {"kInvalidateSpace", 60},
    {"kLoadSpace", 120},
}};

// The sum of the first weights, as many as there are kinds.
constexpr uint32_t SumOfWeights(int kinds) {
  uint32_t sum = 0;
  for (int i = 0; i < kinds; ++i) sum += kRows[static_cast<size_t>(i)].weight;
  return sum;
}
constexpr uint32_t kAllWeights = SumOfWeights(Operation::kKinds);
constexpr uint32_t kWeightsWithoutGuestTables =
    SumOfWeights(static_cast<int>(Kind::kUseRead));
static_assert(Operation::IsOfGuestTables(Kind::kUseRead) &&
              !Operation::IsOfGuestTables(Kind::kNxRecover));
static_assert(static_cast<int>(Kind::kLoadSpace) + 1 == Operation::kKinds);

Kind RandomKind(Rng& rng, GuestTablesUse guest_tables) {
  auto left = static_cast<uint32_t>(UniformBelow(
      rng, guest_tables == GuestTablesUse::kYes ? kAllWeights
                                                : kWeightsWithoutGuestTables));
  for (size_t i = 0;; ++i) {
    if (left < kRows[i].weight) return static_cast<Kind>(i);
    left -= kRows[i].weight;
  }
}

}  // namespace

std::string ToString(const Operation& op) {
  return absl::StrFormat("{Operation::Kind::%s, %d, %d, %d},",
                         kRows[static_cast<size_t>(op.kind)].name, op.a, op.b,
                         op.c);
}

std::ostream& operator<<(std::ostream& os, const Operation& op) {
  return os << ToString(op);
}

Operation RandomOperation(Rng& rng, GuestTablesUse guest_tables) {
  const Kind kind = RandomKind(rng, guest_tables);
  // Pages near the beginning of a place, since slots begin there. Few of them,
  // so that operations meet: half of the time the first 16 only.
  const uint64_t dice = rng();
  const uint64_t within = dice % 2 == 0 ? dice / 2 % 16 : dice / 2 % 1100;
  const auto page = static_cast<uint32_t>((dice >> 32) % 6 * 4096 + within);
  const uint64_t rest = rng();
  return {kind, page, static_cast<uint32_t>(rest % 1024),
          static_cast<uint32_t>((rest >> 32) % 4096)};
}

}  // namespace mmu::testing
