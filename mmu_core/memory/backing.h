// The host memory behind memslots, and its made-up frame numbers.
//
// Mostly it is owned: made here, all of its frames are there from the start to
// the end. Memory of another process is borrowed: somebody else made it and
// unmaps it, and its frames come and go (memory/frame_lender.h).
//
// A process does not know real physical addresses, so each backing gets a range
// of frame numbers of its own. hva >> 12 and pfn are congruent modulo 2^18 (the
// pages of a 1 GiB leaf), as they would be for memory that the host maps with
// 1 GiB pages: a guest frame congruent to one is congruent to both (SLOT-42).
// And the guest's are congruent to them modulo the host's page size, since the
// one who chooses the address here knows where the guest will see it.

#ifndef MMU_CORE_MEMORY_BACKING_H_
#define MMU_CORE_MEMORY_BACKING_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/frame_lender.h"
#include "mmu_core/memory/frame_map.h"
#include "mmu_core/memory/read_only_pages.h"

namespace mmu {

enum class BackingKind : uint8_t {
  kAnonymous,     // private anonymous memory
  kMemfd,         // shared memory of a memfd
  kMetadataOnly,  // none: tables and logs work, contents do not exist
};

// What the host lets be done with a page.
enum class HostAccess : uint8_t { kReadOnly, kReadWrite };

// The end of legal user addresses (SLOT-04): 56 bits, five-level host paging.
inline constexpr uint64_t kUserAddressEnd = (uint64_t{1} << 56) - kPageSize;

// Hvas of metadata-only backings start here. No mmap without an explicit hint
// beyond 47 bits returns memory there.
inline constexpr uint64_t kSyntheticHvaBase = uint64_t{1} << 55;

// A value.
struct BackingSpec {
  BackingKind kind = BackingKind::kAnonymous;
  uint64_t size_bytes = 0;  // a multiple of 4096
  // The page size that the host is taken to map this memory with: the upper
  // limit of the guest's mappings (SLOT-44). k4K, k2M or k1G.
  Level host_page_level = Level::k4K;
  // Where the guest sees the first byte: hva and gpa are congruent modulo the
  // host's page size. A slot that moves keeps its memory, so what it may be
  // mapped with then depends on how far it moves. A multiple of
  // 4096.
  Gpa gpa = Gpa();
};

inline constexpr uint64_t kMaxBackingBytes = uint64_t{1} << 46;

// Memory that somebody lends. A value.
struct BorrowedSpec {
  // What it is to its owner: kAnonymous if private, kMemfd if shared.
  BackingKind kind = BackingKind::kMemfd;
  // Where this process has it, page-aligned: the lender's mapping, which stays
  // for as long as the lender. An access there that comes too late, when the
  // frame has just gone, must not end the process; what it reads or writes is
  // lost. What is kReadWrite can be written there.
  std::byte* address = nullptr;
  uint64_t size_bytes = 0;             // a multiple of 4096
  Level host_page_level = Level::k4K;  // as BackingSpec
};

// Thread-safe: immutable after Create, but for what the host lets be done with
// its pages. Owns its mapping unless it is borrowed; once the last shared_ptr
// is gone no vCPU may touch the memory.
class Backing {
 public:
  // Errors as HostMemory::Allocate, which is who calls this.
  static absl::StatusOr<std::shared_ptr<Backing>> Create(
      const BackingSpec& spec, std::shared_ptr<FrameMap> frames);
  // Errors as HostMemory::Borrow, which is who calls this.
  static absl::StatusOr<std::shared_ptr<Backing>> Borrow(
      const BorrowedSpec& spec, std::shared_ptr<FrameLender> lender,
      std::shared_ptr<FrameMap> frames);

  ~Backing();
  Backing(const Backing&) = delete;
  Backing& operator=(const Backing&) = delete;

  BackingKind kind() const { return spec_.kind; }
  uint64_t size_bytes() const { return spec_.size_bytes; }
  Level host_page_level() const { return spec_.host_page_level; }
  bool has_contents() const { return spec_.kind != BackingKind::kMetadataOnly; }

  bool is_borrowed() const { return lender_ != nullptr; }

  // Changes what the host lets be done with the pages of [hva, hva + bytes).
  // Of a new backing all can be written. Only the host's side calls this,
  // between the start and the end of an invalidation of these pages
  // (vm/slots/host_notifier.h). Of borrowed memory no page may be written that
  // the lender does not let be written. REQUIRES: in this backing,
  // page-aligned, not empty.
  void SetHostAccess(Hva hva, uint64_t bytes, HostAccess access);
  // Every frame is there and may be written; never so if it is borrowed.
  // Lock-free: asked on every fault, and nothing else is then.
  bool all_writable() const { return read_only_.empty() && !is_borrowed(); }
  // REQUIRES: hva in this backing. Called under mmu_lock, too.
  FrameState StateOf(Hva hva) const {
    return all_writable() ? FrameState::kReadWrite : LookUpState(hva);
  }
  bool IsWritable(Hva hva) const {
    return StateOf(hva) == FrameState::kReadWrite;
  }
  // The largest level, at most `max`, at which the host can map the memory
  // around `hva` with one entry: all frames are there, and it is writable as a
  // whole or not at all. REQUIRES: hva in this backing, max <=
  // host_page_level().
  Level MappingLevel(Hva hva, Level max) const;

  // As FrameLender::Read and MakePresent, of borrowed memory. REQUIRES:
  // is_borrowed(); in this backing.
  size_t ReadBorrowed(Hva hva, absl::Span<std::byte> out) const;
  absl::StatusOr<FrameAnswer> AskForFrame(Hva hva, AccessKind kind) const;

  // First byte, at a place in its host page as the guest's (BackingSpec::gpa).
  // Not dereferenceable if metadata-only.
  Hva hva() const { return hva_; }
  // First frame; congruent to hva() modulo 2^18 pages.
  Pfn base_pfn() const { return base_pfn_; }

  bool Contains(Hva hva, uint64_t bytes) const {
    return hva >= hva_ && bytes <= size_bytes() &&
           hva - hva_ <= size_bytes() - bytes;
  }
  // REQUIRES: hva in this backing.
  Pfn PfnOf(Hva hva) const { return base_pfn_ + PageOf(hva); }
  // Null if metadata-only. Of borrowed memory it may be used by who has the
  // page mapped, or has found it to be kReadWrite (BorrowedSpec::address).
  // REQUIRES: hva in this backing.
  std::byte* PointerTo(Hva hva) const {
    MMU_DCHECK(Contains(hva, 1));
    if (!has_contents()) return nullptr;
    return reinterpret_cast<std::byte*>(hva.value());
  }

 private:
  Backing(const BackingSpec& spec, Hva hva, Pfn base_pfn,
          std::shared_ptr<FrameLender> lender,
          std::shared_ptr<FrameMap> frames);

  // Gives `memory` frame numbers; null if there is none, since the contents do
  // not exist. The caller keeps it after an error.
  static absl::StatusOr<std::shared_ptr<Backing>> Make(
      const BackingSpec& spec, std::byte* memory,
      std::shared_ptr<FrameLender> lender, std::shared_ptr<FrameMap> frames);

  FrameState LookUpState(Hva hva) const;

  uint64_t PageOf(Hva hva) const {
    MMU_DCHECK(Contains(hva, 1));
    return (hva - hva_) >> kPageShift;
  }
  // The host's huge pages begin at multiples of their size.
  static uint64_t HostFrameOf(Hva hva) { return hva.value() >> kPageShift; }

  const BackingSpec spec_;
  const Hva hva_;
  const Pfn base_pfn_;
  const std::shared_ptr<FrameMap> frames_;
  const std::shared_ptr<FrameLender> lender_;  // null: the memory is owned
  ReadOnlyPages read_only_;                    // by HostFrameOf
};

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_BACKING_H_
