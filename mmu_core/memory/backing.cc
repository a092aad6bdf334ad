#include "mmu_core/memory/backing.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/memory/frame_lender.h"
#include "mmu_core/memory/frame_map.h"

namespace mmu {
namespace {

absl::Status InvalidSize(uint64_t size, const char* rule) {
  return MakeError(absl::StatusCode::kInvalidArgument,
                   {Reason::kInvalidSize, "size_bytes", EINVAL},
                   absl::StrCat("size_bytes is ", size, ", but ", rule));
}

absl::Status CheckSize(uint64_t size) {
  if (size == 0) {
    return InvalidSize(size, "a backing is not empty; give a size");
  }
  if (!IsPageAligned(size)) {
    return InvalidSize(size, "must be a multiple of 4096; round it up");
  }
  if (size > kMaxBackingBytes) {
    return InvalidSize(size, "at most 2^46 (64 TiB) is possible; reduce it");
  }
  return absl::OkStatus();
}

absl::Status OutOfMemory(uint64_t size, const std::string& why) {
  return MakeError(
      absl::StatusCode::kResourceExhausted,
      {Reason::kResourceExhaustedMemory, "size_bytes", ENOMEM},
      absl::StrCat("cannot allocate size_bytes ", size, " of guest memory: ",
                   why, "; use a smaller size or a metadata-only backing"));
}

// The size modulo which addresses of guest and host are congruent.
uint64_t HostPageBytes(const BackingSpec& spec) {
  return std::max(BytesPer(spec.host_page_level), spec.granule_bytes);
}

// Reserves address space for `spec` that is congruent to its gpa modulo the
// host's page size. Null if the address space has no such gap.
std::byte* ReserveCongruent(const BackingSpec& spec) {
  const uint64_t alignment = HostPageBytes(spec);
  const uint64_t padded = spec.size_bytes + alignment - kPageSize;
  void* raw = mmap(nullptr, padded, PROT_NONE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  std::byte* const begin = static_cast<std::byte*>(raw);
  const uint64_t head =
      (spec.gpa.value() - reinterpret_cast<uintptr_t>(raw)) % alignment;
  const uint64_t tail = padded - head - spec.size_bytes;
  if (head > 0) munmap(begin, head);
  if (tail > 0) munmap(begin + head + spec.size_bytes, tail);
  return begin + head;
}

// Maps zeroed memory over a reservation. False with errno set on failure.
bool MapContents(const BackingSpec& spec, std::byte* where) {
  if (spec.kind == BackingKind::kAnonymous) {
    void* mapped =
        mmap(where, spec.size_bytes, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    if (mapped == MAP_FAILED) return false;
    // Does not ask for huge pages. The guest's level follows the declared host
    // level, and a guest's write to one word should not use 2 MiB of the host.
    return true;
  }
  const int fd = memfd_create("guest-memory", MFD_CLOEXEC);
  if (fd < 0) return false;
  bool ok = ftruncate(fd, static_cast<off_t>(spec.size_bytes)) == 0;
  if (ok) {
    ok = mmap(where, spec.size_bytes, PROT_READ | PROT_WRITE,
              MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd, 0) != MAP_FAILED;
  }
  const int saved_errno = errno;
  close(fd);  // the mapping keeps the memory
  errno = saved_errno;
  return ok;
}

}  // namespace

absl::StatusOr<std::shared_ptr<Backing>> Backing::Create(
    const BackingSpec& spec, std::shared_ptr<FrameMap> frames) {
  MMU_CHECK(spec.host_page_level <= kMaxLeafLevel);
  MMU_CHECK(IsPageAligned(spec.gpa.value()));
  if (absl::Status s = CheckSize(spec.size_bytes); !s.ok()) return s;
  const uint64_t size = spec.size_bytes;
  std::byte* memory = nullptr;
  if (spec.kind != BackingKind::kMetadataOnly) {
    memory = ReserveCongruent(spec);
    if (memory == nullptr) return OutOfMemory(size, std::strerror(errno));
    if (!MapContents(spec, memory)) {
      const int saved_errno = errno;
      munmap(memory, size);
      return OutOfMemory(size, std::strerror(saved_errno));
    }
  }
  absl::StatusOr<std::shared_ptr<Backing>> backing =
      Make(spec, memory, /*lender=*/nullptr, std::move(frames));
  if (!backing.ok() && memory != nullptr) munmap(memory, size);
  return backing;
}

absl::StatusOr<std::shared_ptr<Backing>> Backing::Borrow(
    const BorrowedSpec& spec, std::shared_ptr<FrameLender> lender,
    std::shared_ptr<FrameMap> frames) {
  MMU_CHECK(lender != nullptr && spec.kind != BackingKind::kMetadataOnly);
  MMU_CHECK(spec.host_page_level <= kMaxLeafLevel);
  MMU_CHECK(spec.address != nullptr &&
            IsPageAligned(reinterpret_cast<uintptr_t>(spec.address)));
  if (absl::Status s = CheckSize(spec.size_bytes); !s.ok()) return s;
  return Make({.kind = spec.kind,
               .size_bytes = spec.size_bytes,
               .host_page_level = spec.host_page_level},
              spec.address, std::move(lender), std::move(frames));
}

absl::StatusOr<std::shared_ptr<Backing>> Backing::Make(
    const BackingSpec& spec, std::byte* memory,
    std::shared_ptr<FrameLender> lender, std::shared_ptr<FrameMap> frames) {
  const uint64_t size = spec.size_bytes;
  const uint64_t pages = size >> kPageShift;
  // The index of the first page within its gigabyte of frame numbers.
  const uint64_t first =
      (memory != nullptr ? reinterpret_cast<uintptr_t>(memory)
                         : spec.gpa.value() % HostPageBytes(spec)) /
      kPageSize % PagesPer(Level::k1G);
  const std::optional<Pfn> gigabyte = frames->Reserve(first + pages);
  if (!gigabyte.has_value()) {
    return OutOfMemory(size, "the VM has used all its host frame numbers");
  }
  const Pfn base_pfn = *gigabyte + first;
  const Hva hva(memory != nullptr
                    ? reinterpret_cast<uint64_t>(memory)
                    : kSyntheticHvaBase + (base_pfn.value() << kPageShift));
  auto* const made = new (std::nothrow)
      Backing(spec, hva, base_pfn, std::move(lender), frames);
  if (made == nullptr) return OutOfMemory(size, std::strerror(ENOMEM));
  std::shared_ptr<Backing> backing(made);  // owns the memory from here on
  if (memory != nullptr) frames->Publish(base_pfn, pages, memory);
  return backing;
}

Backing::Backing(const BackingSpec& spec, Hva hva, Pfn base_pfn,
                 std::shared_ptr<FrameLender> lender,
                 std::shared_ptr<FrameMap> frames)
    : spec_(spec),
      hva_(hva),
      base_pfn_(base_pfn),
      frames_(std::move(frames)),
      lender_(std::move(lender)) {}

FrameState Backing::LookUpState(Hva hva) const {
  const bool may_write = !read_only_.Contains(HostFrameOf(hva));
  const FrameState lent =
      is_borrowed() ? lender_->StateOf(PageOf(hva)) : FrameState::kReadWrite;
  return may_write ? lent : std::min(lent, FrameState::kReadOnly);
}

Level Backing::MappingLevel(Hva hva, Level max) const {
  const Level level = read_only_.UniformLevel(HostFrameOf(hva), max);
  return is_borrowed() ? lender_->UniformLevel(PageOf(hva), level) : level;
}

size_t Backing::ReadBorrowed(Hva hva, absl::Span<std::byte> out) const {
  MMU_CHECK(is_borrowed() && Contains(hva, out.size()));
  return lender_->Read(hva - hva_, out);
}

absl::StatusOr<FrameAnswer> Backing::AskForFrame(Hva hva,
                                                 AccessKind kind) const {
  MMU_CHECK(is_borrowed());
  return lender_->MakePresent(PageOf(hva), kind);
}

void Backing::SetHostAccess(Hva hva, uint64_t bytes, HostAccess access) {
  MMU_CHECK(bytes > 0 && Contains(hva, bytes));
  MMU_CHECK(IsPageAligned(hva.value()) && IsPageAligned(bytes));
  const uint64_t first = HostFrameOf(hva);
  const uint64_t end = first + (bytes >> kPageShift);
  if (access == HostAccess::kReadOnly) {
    read_only_.Add(first, end);
  } else {
    read_only_.Remove(first, end);
  }
}

Backing::~Backing() {
  if (!has_contents()) return;
  frames_->Retire(base_pfn_, size_bytes() >> kPageShift);
  if (is_borrowed()) return;
  munmap(reinterpret_cast<void*>(hva_.value()), size_bytes());
}

}  // namespace mmu
