// The host memory behind memslots, and its made-up frame numbers.
//
// Most memory is owned: the Backing allocates it, and all of its frames exist
// from the start to the end. Memory of another process is borrowed: the other
// process allocates and unmaps it, and its frames come and go
// (memory/frame_lender.h).
//
// A process does not know real physical addresses, so each backing gets a range
// of frame numbers of its own. hva >> 12 and pfn are congruent modulo 2^18 (the
// pages of a 1 GiB leaf), as they would be for memory that the host maps with 1
// GiB pages: a guest frame congruent to one is congruent to both (SLOT-42). The
// guest's frames are congruent to them modulo the host's page size, since the
// address here is chosen to match the guest's.

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

// Access that the host allows to a page.
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
  // The page size with which the host is assumed to map this memory: the upper
  // limit of the guest's mappings (SLOT-44). k4K, k2M or k1G.
  Level host_page_level = Level::k4K;
  // The smallest page of the host: a power of two, 4096 to 65536.
  uint64_t granule_bytes = kPageSize;
  // The guest-physical address of the first byte: hva and gpa are congruent
  // modulo the host's page size. A slot that moves keeps its memory, so its
  // possible mapping levels then depend on the distance of the move. A multiple
  // of 4096.
  Gpa gpa = Gpa();
};

inline constexpr uint64_t kMaxBackingBytes = uint64_t{1} << 46;

// Memory lent by a FrameLender, for VMs whose pages have 4 KiB: its frames come
// and go one by one, so a larger granule of stage 2 would map frames that are
// not there. A value.
struct BorrowedSpec {
  // The memory's kind in its owner: kAnonymous if private, kMemfd if shared.
  BackingKind kind = BackingKind::kMemfd;
  // The page-aligned address in this process: the lender's mapping, which lives
  // as long as the lender. An access that comes too late, just after the frame
  // has gone, must not end the process; its data is lost. Pages that are
  // kReadWrite can be written at this address.
  std::byte* address = nullptr;
  uint64_t size_bytes = 0;             // a multiple of 4096
  Level host_page_level = Level::k4K;  // as BackingSpec
};

// Thread-safe: immutable after Create, except for the host's access to its
// pages. Owns its mapping unless the memory is borrowed. Once the last
// shared_ptr is gone, no vCPU may touch the memory.
class Backing {
 public:
  // Called by HostMemory::Allocate. Errors: as there.
  static absl::StatusOr<std::shared_ptr<Backing>> Create(
      const BackingSpec& spec, std::shared_ptr<FrameMap> frames);
  // Called by HostMemory::Borrow. Errors: as there.
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

  // Changes the access that the host allows to the pages of [hva, hva + bytes).
  // In a new backing all pages can be written. Called only by the host's side,
  // between the start and the end of an invalidation of these pages
  // (vm/slots/host_notifier.h). In borrowed memory a page stays unwritable as
  // long as the lender does not allow writes to it. REQUIRES: in this backing,
  // page-aligned, not empty.
  void SetHostAccess(Hva hva, uint64_t bytes, HostAccess access);
  // Whether every frame is there and may be written; always false if borrowed.
  // Lock-free: every fault calls this, and needs no other check if it is true.
  bool all_writable() const { return read_only_.empty() && !is_borrowed(); }
  // REQUIRES: hva in this backing. May be called under mmu_lock.
  FrameState StateOf(Hva hva) const {
    return all_writable() ? FrameState::kReadWrite : LookUpState(hva);
  }
  bool IsWritable(Hva hva) const {
    return StateOf(hva) == FrameState::kReadWrite;
  }
  // The largest level, at most `max`, at which the host can map the memory
  // around `hva` with one entry: all frames are there, and either all of them
  // are writable or none. REQUIRES: hva in this backing, max <=
  // host_page_level().
  Level MappingLevel(Hva hva, Level max) const;

  // FrameLender::Read and FrameLender::MakePresent for borrowed memory.
  // REQUIRES: is_borrowed(); in this backing.
  size_t ReadBorrowed(Hva hva, absl::Span<std::byte> out) const;
  absl::StatusOr<FrameAnswer> AskForFrame(Hva hva, AccessKind kind) const;

  // First byte. Its offset in the host page is the same as the guest's
  // (BackingSpec::gpa). Not dereferenceable if metadata-only.
  Hva hva() const { return hva_; }
  // First frame; congruent to hva() modulo 2^18 pages.
  Pfn base_pfn() const { return base_pfn_; }

  bool Contains(Hva hva, uint64_t bytes) const {
    return hva >= hva_ && bytes <= size_bytes() &&
           hva - hva_ <= size_bytes() - bytes;
  }
  // REQUIRES: hva in this backing.
  Pfn PfnOf(Hva hva) const { return base_pfn_ + PageOf(hva); }
  // Null if metadata-only. A pointer to borrowed memory may be used only by a
  // caller that has the page mapped, or has found it to be kReadWrite
  // (BorrowedSpec::address). REQUIRES: hva in this backing.
  std::byte* PointerTo(Hva hva) const {
    MMU_DCHECK(Contains(hva, 1));
    if (!has_contents()) return nullptr;
    return reinterpret_cast<std::byte*>(hva.value());
  }

 private:
  Backing(const BackingSpec& spec, Hva hva, Pfn base_pfn,
          std::shared_ptr<FrameLender> lender,
          std::shared_ptr<FrameMap> frames);

  // Gives `memory` frame numbers. `memory` is null if the backing has no
  // contents. After an error the caller still owns `memory`.
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
