#include "mmu_core/guest/pattern.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/numeric/int128.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/guest/page_permutation.h"
#include "mmu_core/guest/random.h"
#include "mmu_core/guest/zipf_sampler.h"

namespace mmu {
namespace {

constexpr uint32_t kWordBytes = 8;
constexpr uint64_t kWordsPerPage = kPageSize / kWordBytes;

// Counts accesses and draws their kinds; subclasses choose the addresses.
class PatternSource : public AccessSource {
 public:
  PatternSource(const PatternSpec& spec, GpaSpace space, uint64_t rng_seed)
      : space_(std::move(space)),
        rng_(rng_seed),
        access_count_(spec.access_count),
        write_fraction_(spec.write_fraction),
        write_or_exec_fraction_(spec.write_fraction + spec.exec_fraction) {}

  bool Next(GuestAccess* access) final {
    if (access_count_ != 0 && done_ == access_count_) return false;
    access->address_bytes = space_.At(NextOffset()).value();
    access->size_bytes = kWordBytes;
    access->kind = NextKind();
    ++done_;
    return true;
  }

 protected:
  // An 8-byte aligned offset into space().
  virtual uint64_t NextOffset() = 0;

  const GpaSpace& space() const { return space_; }
  Rng& rng() { return rng_; }
  uint64_t done() const { return done_; }

  uint64_t WordIn(uint64_t page) {
    return (page << kPageShift) +
           UniformBelow(rng_, kWordsPerPage) * kWordBytes;
  }

 private:
  AccessKind NextKind() {
    const double draw = UniformUnit(rng_);
    if (draw < write_fraction_) return AccessKind::kWrite;
    if (draw < write_or_exec_fraction_) return AccessKind::kExec;
    return AccessKind::kRead;
  }

  const GpaSpace space_;
  Rng rng_;
  const uint64_t access_count_;
  const double write_fraction_;
  const double write_or_exec_fraction_;
  uint64_t done_ = 0;
};

class SequentialSource final : public PatternSource {
 public:
  SequentialSource(const PatternSpec& spec, GpaSpace share, uint64_t rng_seed)
      : PatternSource(spec, std::move(share), rng_seed),
        stride_bytes_(spec.stride_bytes) {}

 private:
  uint64_t NextOffset() override {
    const uint64_t offset = next_;
    next_ += stride_bytes_;  // at most the size, as Validate ensures
    if (next_ >= space().size_bytes()) next_ -= space().size_bytes();
    return offset;
  }

  const uint64_t stride_bytes_;
  uint64_t next_ = 0;
};

class UniformSource final : public PatternSource {
 public:
  using PatternSource::PatternSource;

 private:
  uint64_t NextOffset() override {
    return UniformBelow(rng(), space().size_bytes() / kWordBytes) * kWordBytes;
  }
};

class ZipfSource final : public PatternSource {
 public:
  ZipfSource(const PatternSpec& spec, GpaSpace region, uint64_t rng_seed)
      : PatternSource(spec, std::move(region), rng_seed),
        sampler_(space().pages(), spec.zipf_exponent),
        order_(space().pages(), spec.seed) {}

 private:
  uint64_t NextOffset() override {
    return WordIn(order_.At(sampler_.Sample(rng())));
  }

  const ZipfSampler sampler_;
  const PagePermutation order_;
};

class HotColdSource final : public PatternSource {
 public:
  HotColdSource(const PatternSpec& spec, GpaSpace region, uint64_t rng_seed)
      : PatternSource(spec, std::move(region), rng_seed),
        hot_pages_(HotPages(space().pages(), spec.hot_fraction)),
        hot_access_fraction_(spec.hot_access_fraction),
        drift_(spec.drift_pages_per_million_accesses) {}

 private:
  static uint64_t HotPages(uint64_t pages, double fraction) {
    const double hot = std::round(static_cast<double>(pages) * fraction);
    return std::clamp<uint64_t>(static_cast<uint64_t>(hot), 1, pages);
  }

  uint64_t NextOffset() override {
    const uint64_t pages = space().pages();
    const uint64_t start =
        absl::Uint128Low64(absl::uint128(done()) * drift_ / 1'000'000 % pages);
    const bool hot =
        hot_pages_ == pages || UniformUnit(rng()) < hot_access_fraction_;
    const uint64_t in_window =
        hot ? UniformBelow(rng(), hot_pages_)
            : hot_pages_ + UniformBelow(rng(), pages - hot_pages_);
    const uint64_t page = start + in_window;
    return WordIn(page < pages ? page : page - pages);
  }

  const uint64_t hot_pages_;
  const double hot_access_fraction_;
  const uint64_t drift_;
};

}  // namespace

std::unique_ptr<AccessSource> MakePattern(const PatternSpec& spec,
                                          const GpaSpace& space,
                                          uint32_t vcpu_index,
                                          uint32_t vcpu_count) {
  MMU_CHECK(vcpu_index < vcpu_count);
  MMU_CHECK(Validate(spec, space.size_bytes(), vcpu_count).ok());
  const uint64_t first_page = spec.offset_bytes >> kPageShift;
  const uint64_t pages = spec.size_bytes != 0 ? spec.size_bytes >> kPageShift
                                              : space.pages() - first_page;
  GpaSpace region = space.Slice(first_page, pages);
  const uint64_t rng_seed = MixBits(MixBits(spec.seed) + vcpu_index);
  switch (spec.kind) {
    case PatternSpec::Kind::kSequential:
      return std::make_unique<SequentialSource>(
          spec, region.Share(vcpu_index, vcpu_count), rng_seed);
    case PatternSpec::Kind::kUniform:
      return std::make_unique<UniformSource>(spec, std::move(region), rng_seed);
    case PatternSpec::Kind::kZipf:
      return std::make_unique<ZipfSource>(spec, std::move(region), rng_seed);
    case PatternSpec::Kind::kHotCold:
      return std::make_unique<HotColdSource>(spec, std::move(region), rng_seed);
  }
  MMU_CHECK(false);
  return nullptr;
}

}  // namespace mmu
