#include "mmu_core/working_set/generation_map.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/types/span.h"
#include "mmu_core/base/bits.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/zeroed_memory.h"
#include "mmu_core/working_set/age_run_joiner.h"
#include "mmu_core/working_set/generation_age.h"

namespace mmu {
namespace {

constexpr uint64_t kMaxPages = (uint64_t{1} << 31) - 1;

// The bytes are kept in words: the byte of page p is byte p % 8, counted from
// the least significant one, of word p / 8. A young bitmap has one word for the
// pages of eight such words, a group.
constexpr uint64_t kWordPages = sizeof(uint64_t);
constexpr uint64_t kGroupPages = kWordBits;
constexpr uint64_t kGroupWords = kGroupPages / kWordPages;
constexpr uint64_t kChunkPages = 4096;
constexpr uint64_t kChunkWords = kChunkPages / kWordPages;

constexpr uint64_t PageWordsFor(uint64_t npages) {
  return (npages + kWordPages - 1) / kWordPages;
}

constexpr uint64_t kEachByte = 0x0101010101010101;

// A word of eight equal bytes.
constexpr uint64_t Filled(uint8_t byte) { return kEachByte * byte; }

constexpr bool IsFilled(uint64_t word) { return std::rotl(word, 8) == word; }

constexpr uint8_t ByteOf(uint64_t word, uint64_t n) {
  return static_cast<uint8_t>(word >> (8 * n));
}

// The word whose byte n is 0xff if bit n of `bits` is set, and 0 otherwise.
constexpr uint64_t BytesOfBits(uint8_t bits) {
  // Byte n of the product is `bits`; the mask leaves its bit n alone. Adding
  // 0x7f moves a byte that is not 0 to its highest bit, without a carry.
  const uint64_t single = Filled(bits) & 0x8040201008040201;
  return ((single + Filled(0x7f)) >> 7 & kEachByte) * 0xff;
}
static_assert(BytesOfBits(0b10000101) == 0xff00000000ff00ff);

// The `count` bits, at most 64, of a bitmap from bit `first` on.
uint64_t BitsFrom(absl::Span<const uint64_t> words, uint64_t first,
                  uint64_t count) {
  const uint64_t i = first / kWordBits;
  const uint64_t shift = first % kWordBits;
  uint64_t bits = words[i] >> shift;
  if (count > kWordBits - shift) bits |= words[i + 1] << (kWordBits - shift);
  return bits & WordMask(0, 0, count);
}

uint64_t ChunkEnd(uint64_t page) {
  return (page / kChunkPages + 1) * kChunkPages;
}

}  // namespace

std::shared_ptr<GenerationMap> GenerationMap::TryCreate(uint64_t npages) {
  MMU_CHECK(npages > 0 && npages <= kMaxPages);
  const uint64_t words = PageWordsFor(npages);
  const uint64_t chunks = (npages + kChunkPages - 1) / kChunkPages;
  ZeroedMemory memory =
      ZeroedMemory::TryAllocate((words + WordsFor(chunks)) * sizeof(uint64_t));
  if (!memory) return nullptr;
  return std::shared_ptr<GenerationMap>(
      new GenerationMap(npages, std::move(memory)));
}

GenerationMap::GenerationMap(uint64_t npages, ZeroedMemory memory)
    : memory_(std::move(memory)),
      npages_(npages),
      word_count_(PageWordsFor(npages)),
      words_(static_cast<uint64_t*>(memory_.get())),
      used_(words_ + word_count_) {}

// All accesses are relaxed. A page's byte says something about that page alone,
// and no other memory is published through it. Since there is one writer, it
// may load a word, change some of its bytes and store it, without a locked
// instruction, and no byte of another write is lost. A reader that sees a
// chunk's bytes but not yet its bit takes the pages as never young, as if it
// had read the bytes before the write.
inline uint64_t GenerationMap::Load(uint64_t i) const {
  return std::atomic_ref<uint64_t>(words_[i]).load(std::memory_order_relaxed);
}

inline void GenerationMap::Store(uint64_t i, uint64_t word) {
  std::atomic_ref<uint64_t>(words_[i]).store(word, std::memory_order_relaxed);
}

inline bool GenerationMap::IsUsed(uint64_t chunk) const {
  const std::atomic_ref<uint64_t> word(used_[chunk / kWordBits]);
  return (word.load(std::memory_order_relaxed) & BitOf(chunk)) != 0;
}

inline void GenerationMap::MarkUsed(uint64_t chunk) {
  const std::atomic_ref<uint64_t> word(used_[chunk / kWordBits]);
  const uint64_t before = word.load(std::memory_order_relaxed);
  if ((before & BitOf(chunk)) != 0) return;
  word.store(before | BitOf(chunk), std::memory_order_relaxed);
}

inline void GenerationMap::RecordGroup(uint64_t group, uint64_t young,
                                       uint64_t filled) {
  if (young == 0) return;
  MarkUsed(group * kGroupPages / kChunkPages);
  const uint64_t first = group * kGroupWords;
  if (young == ~uint64_t{0}) {
    for (uint64_t i = 0; i < kGroupWords; ++i) Store(first + i, filled);
    return;
  }
  while (young != 0) {
    const auto n = static_cast<uint64_t>(std::countr_zero(young)) / 8;
    const uint64_t mask = BytesOfBits(ByteOf(young, n));
    Store(first + n, (Load(first + n) & ~mask) | (filled & mask));
    young &= ~(uint64_t{0xff} << (8 * n));
  }
}

void GenerationMap::Record(uint64_t first, uint64_t end,
                           absl::Span<const uint64_t> young, uint64_t first_bit,
                           uint64_t sequence) {
  MMU_CHECK(first <= end && end <= npages_ && sequence > 0);
  MMU_CHECK(first_bit + (end - first) <= young.size() * kWordBits);
  const uint64_t filled = Filled(GenerationByte(sequence));
  for (uint64_t page = first; page < end;) {
    const uint64_t group = page / kGroupPages;
    const uint64_t next = std::min(end, (group + 1) * kGroupPages);
    const uint64_t bits =
        BitsFrom(young, first_bit + (page - first), next - page);
    RecordGroup(group, bits << (page % kGroupPages), filled);
    page = next;
  }
}

void GenerationMap::RecordAll(uint64_t first, uint64_t end, uint64_t sequence) {
  MMU_CHECK(first <= end && end <= npages_ && sequence > 0);
  if (first == end) return;
  const uint64_t filled = Filled(GenerationByte(sequence));
  for (uint64_t group = first / kGroupPages; group * kGroupPages < end;
       ++group) {
    RecordGroup(group, WordMask(group, first, end), filled);
  }
}

template <typename Fn>
uint64_t GenerationMap::ForEachUsedWord(Fn fn) const {
  uint64_t used_words = 0;
  for (uint64_t i = 0; i < word_count_;) {
    const uint64_t end = std::min(word_count_, i + kChunkWords);
    if (!IsUsed(i / kChunkWords)) {
      i = end;
      continue;
    }
    used_words += end - i;
    for (; i < end; ++i) fn(i, Load(i));
  }
  return used_words;
}

void GenerationMap::Clamp(uint64_t newest) {
  if (newest <= kMaxGenerationAge) return;
  const uint8_t oldest = GenerationByte(newest - kMaxGenerationAge);
  const GenerationAges ages(newest);
  std::array<uint8_t, 256> clamped;
  for (unsigned byte = 0; byte < clamped.size(); ++byte) {
    const auto same = static_cast<uint8_t>(byte);
    clamped[byte] = ages[same] == kMaxGenerationAge ? oldest : same;
  }
  uint64_t unchanged = 0;  // a word that needs no change
  ForEachUsedWord([&](uint64_t i, uint64_t word) {
    if (word == 0 || word == unchanged) return;
    uint64_t changed = 0;
    for (uint64_t n = 0; n < kWordPages; ++n) {
      changed |= uint64_t{clamped[ByteOf(word, n)]} << (8 * n);
    }
    if (changed != word) Store(i, changed);
    unchanged = changed;
  });
}

GenerationAge GenerationMap::AgeOf(uint64_t page, uint64_t newest) const {
  MMU_CHECK(page < npages_);
  if (!IsUsed(page / kChunkPages)) return kNeverYoung;
  return AgeOfByte(ByteOf(Load(page / kWordPages), page % kWordPages), newest);
}

void GenerationMap::AddTo(AgeHistogram& histogram,
                          const GenerationAges& ages) const {
  // Neighbouring pages often have the same byte. With counters of their own
  // they do not wait for each other's addition.
  std::array<std::array<uint32_t, 256>, 4> counts{};
  const uint64_t used_words = ForEachUsedWord([&](uint64_t i, uint64_t word) {
    if (IsFilled(word)) {
      counts[i % 4][ByteOf(word, 0)] += kWordPages;
      return;
    }
    for (uint64_t n = 0; n < kWordPages; ++n) {
      ++counts[n % 4][ByteOf(word, n)];
    }
  });
  for (unsigned byte = 0; byte < 256; ++byte) {
    uint64_t sum = 0;
    for (const auto& part : counts) sum += part[byte];
    histogram[ages[static_cast<uint8_t>(byte)]] += sum;
  }
  // The last word may have bytes behind the last page, which are 0.
  histogram[kNeverYoung] += (word_count_ - used_words) * kWordPages;
  histogram[kNeverYoung] -= word_count_ * kWordPages - npages_;
}

GenerationAge GenerationMap::YoungestOf(uint64_t first, uint64_t end,
                                        const GenerationAges& ages) const {
  MMU_CHECK(end <= npages_);
  GenerationAge youngest = kNeverYoung;
  uint64_t last = 0;  // a word whose pages are no younger than `youngest`
  for (uint64_t page = first; page < end && youngest > 0;) {
    if (!IsUsed(page / kChunkPages)) {
      page = ChunkEnd(page);
      continue;
    }
    uint64_t word = Load(page / kWordPages) >> (8 * (page % kWordPages));
    const uint64_t next = std::min(end, (page / kWordPages + 1) * kWordPages);
    if (next - page < kWordPages) word &= WordMask(0, 0, 8 * (next - page));
    page = next;
    if (word == last) continue;
    last = word;
    if (IsFilled(word)) {
      youngest = std::min(youngest, ages[ByteOf(word, 0)]);
      continue;
    }
    // Bytes that were masked away are 0, of a page that was never young.
    for (uint64_t n = 0; n < kWordPages; ++n) {
      youngest = std::min(youngest, ages[ByteOf(word, n)]);
    }
  }
  return youngest;
}

void GenerationMap::ForEachRun(uint64_t first, uint64_t end,
                               const GenerationAges& ages, AgeRunFn fn) const {
  MMU_CHECK(end <= npages_);
  AgeRunJoiner runs(first, fn);
  for (uint64_t page = first; page < end;) {
    if (!IsUsed(page / kChunkPages)) {
      page = std::min(end, ChunkEnd(page));
      runs.Add(page, ages[0]);
      continue;
    }
    const uint64_t word = Load(page / kWordPages);
    const uint64_t next = std::min(end, (page / kWordPages + 1) * kWordPages);
    if (IsFilled(word)) {
      page = next;
      runs.Add(page, ages[ByteOf(word, 0)]);
      continue;
    }
    while (page < next) {
      const GenerationAge age = ages[ByteOf(word, page % kWordPages)];
      runs.Add(++page, age);
    }
  }
  runs.Finish();
}

}  // namespace mmu
