#include "mmu_core/paging/mmio_spte.h"

#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/paging/spte_format.h"

namespace mmu {
namespace {

std::vector<MmioFormat> AllFormats() {
  std::vector<MmioFormat> formats;
  for (const auto kind : {MmioFormat::Kind::kEpt, MmioFormat::Kind::kNpt}) {
    for (const int bits : {36, 40, 46, 47, 51, 52})
      formats.emplace_back(kind, bits);
  }
  return formats;
}

// Calls `fn` with every single bit of gfn and generation, all of them, and
// none.
template <typename Fn>
void ForEachValue(const MmioFormat& format, Fn fn) {
  std::vector<uint64_t> gfns = {0, format.max_gfn().value()};
  for (uint64_t gfn = 1; gfn <= format.max_gfn().value(); gfn <<= 1) {
    gfns.push_back(gfn);
  }
  std::vector<uint64_t> generations = {0, kMmioGenerationMask};
  for (int bit = 0; bit < 18; ++bit) generations.push_back(uint64_t{1} << bit);
  for (const uint64_t gfn : gfns) {
    for (const uint64_t generation : generations) fn(Gfn(gfn), generation);
  }
}

// Covers: SPTE-41, SPTE-42
TEST(MmioSpteTest, GfnAndGenerationComeBackBitByBit) {
  for (const MmioFormat& format : AllFormats()) {
    if (!format.enabled()) continue;
    ForEachValue(format, [&](Gfn gfn, uint64_t generation) {
      const Spte spte = format.Make(gfn, generation);
      EXPECT_TRUE(format.IsMmio(spte)) << spte;
      EXPECT_EQ(format.GfnOf(spte), gfn) << spte;
      EXPECT_EQ(format.GenerationOf(spte), generation) << spte;
    });
  }
}

// Covers: SPTE-40
TEST(MmioSpteTest, ItIsNeitherPresentNorAnythingElse) {
  for (const MmioFormat& format : AllFormats()) {
    if (!format.enabled()) continue;
    EXPECT_FALSE(format.IsMmio(Spte::Initial()));
    EXPECT_FALSE(format.IsMmio(Spte::Frozen()));
    ForEachValue(format, [&](Gfn gfn, uint64_t generation) {
      const Spte spte = format.Make(gfn, generation);
      EXPECT_FALSE(spte.IsPresent());
      EXPECT_FALSE(spte.IsFrozen());
    });
  }
}

// Covers: SPTE-40
TEST(MmioSpteTest, TheHardwareRefusesIt) {
  const MmioFormat ept(MmioFormat::Kind::kEpt, 46);
  ForEachValue(ept, [&](Gfn gfn, uint64_t generation) {
    const uint64_t bits = ept.Make(gfn, generation).bits();
    EXPECT_EQ(bits & 7, 0b110u) << "write and execute without read";
    EXPECT_EQ(bits >> 63, 0u) << "an exit, not #VE";
  });
  const MmioFormat npt(MmioFormat::Kind::kNpt, 46);
  ForEachValue(npt, [&](Gfn gfn, uint64_t generation) {
    const uint64_t bits = npt.Make(gfn, generation).bits();
    EXPECT_EQ(bits & 1, 1u);
    EXPECT_EQ(bits >> 51 & 1, 1u) << "a reserved address bit";
  });
}

// Covers: SPTE-40
TEST(MmioSpteTest, NptOnAHostWithAllAddressBitsHasNone) {
  EXPECT_FALSE(MmioFormat(MmioFormat::Kind::kNpt, 52).enabled());
  EXPECT_TRUE(MmioFormat(MmioFormat::Kind::kNpt, 51).enabled());
  EXPECT_TRUE(MmioFormat(MmioFormat::Kind::kEpt, 52).enabled());
}

// Covers: SPTE-42
TEST(MmioSpteTest, TopFiveAddressBitsAreSetWhereTheHostIsAffected) {
  for (const int bits : {36, 46}) {
    const MmioFormat format(MmioFormat::Kind::kEpt, bits);
    const uint64_t top = uint64_t{31} << (bits - 5);
    EXPECT_EQ(format.Make(Gfn(0), 0).bits() & top, top);
  }
  const MmioFormat format(MmioFormat::Kind::kEpt, 47);
  EXPECT_EQ(format.Make(Gfn(0), 0).bits() & spte_bits::kAddress, 0u);
}

// Covers: SPTE-41
TEST(MmioSpteTest, OfAGenerationEighteenBitsAreKept) {
  const MmioFormat format(MmioFormat::Kind::kEpt, 46);
  EXPECT_EQ(format.Make(Gfn(1), (uint64_t{1} << 18) + 5),
            format.Make(Gfn(1), 5));
}

}  // namespace
}  // namespace mmu
