// The age of a page in generations, and the byte that tells it.
//
// A generation is one scan of guest memory for young pages. Generations have
// sequence numbers, which ascend from 1. A page's byte is 0 if no scan has
// found the page young; otherwise it is 1 + s % 255, where s is the sequence
// number of the last generation that found it young.
//
// So a byte tells the difference between s and the newest generation n only
// modulo 255. The 255 possible differences are divided as follows:
//
//     0 to 127   the age of the page
//   128 to 191   that of an old page, given as 127: GenerationMap::Clamp has
//                not renewed the page's byte yet
//   192 to 254   that of a page of a generation after n, given as 0: the reader
//                took n before that generation began
//
// The division holds if Clamp runs at least once in 64 generations, and if no
// reader uses its n for longer than 63 generations.

#ifndef MMU_CORE_WORKING_SET_GENERATION_AGE_H_
#define MMU_CORE_WORKING_SET_GENERATION_AGE_H_

#include <array>
#include <cstdint>

namespace mmu {

// The number of generations from the one that last found a page young to the
// newest one: 0 to kMaxGenerationAge, or kNeverYoung. kMaxGenerationAge stands
// for itself and all greater ages. The youngest of several pages is the one
// with the least value.
using GenerationAge = uint8_t;
inline constexpr GenerationAge kMaxGenerationAge = 127;
inline constexpr GenerationAge kNeverYoung = kMaxGenerationAge + 1;

// The greatest number of generations from one Clamp to the next.
inline constexpr uint64_t kClampInterval = 64;

// The byte of a page that generation `sequence`, at least 1, found young.
constexpr uint8_t GenerationByte(uint64_t sequence) {
  return static_cast<uint8_t>(1 + sequence % 255);
}

// The age that `byte` tells if `newest` is the newest generation. Before the
// first generation, when `newest` is 0, no page has been found young.
constexpr GenerationAge AgeOfByte(uint8_t byte, uint64_t newest) {
  if (byte == 0 || newest == 0) return kNeverYoung;
  const uint64_t difference = (255u + GenerationByte(newest) - byte) % 255;
  if (difference >= kMaxGenerationAge + 1 + kClampInterval) return 0;
  return difference < kMaxGenerationAge ? static_cast<GenerationAge>(difference)
                                        : kMaxGenerationAge;
}

// AgeOfByte of every byte, for a pass over many pages. A value.
class GenerationAges {
 public:
  explicit constexpr GenerationAges(uint64_t newest) {
    for (unsigned byte = 0; byte < ages_.size(); ++byte) {
      ages_[byte] = AgeOfByte(static_cast<uint8_t>(byte), newest);
    }
  }

  constexpr GenerationAge operator[](uint8_t byte) const { return ages_[byte]; }

  // Replaces each age for which `is_replaced` returns true by `age`. A pass
  // that needs only some ages gives the others one value, to make their runs
  // long.
  template <typename Predicate>
  constexpr void ReplaceIf(Predicate is_replaced, GenerationAge age) {
    for (GenerationAge& a : ages_) {
      if (is_replaced(a)) a = age;
    }
  }

 private:
  std::array<GenerationAge, 256> ages_{};
};

// Numbers of pages by age; the last is of those never found young. A value.
using AgeHistogram = std::array<uint64_t, kNeverYoung + 1>;

}  // namespace mmu

#endif  // MMU_CORE_WORKING_SET_GENERATION_AGE_H_
