#include "mmu_core/guest/kernel/shared_words.h"

#include <cstddef>

#include "mmu_core/base/format.h"

namespace mmu {

SharedWords::SharedWords(int cpus, uint64_t pages)
    : cpus_(cpus), pages_(pages), words_(pages * static_cast<uint64_t>(cpus)) {}

SharedWords::Before SharedWords::BeginRead(int writer, uint64_t page) const {
  const Word& word = WordOf(writer, page);
  Before before;
  before.low = word.low;
  before.high = word.high;
  before.unmaps_at_write = word.unmaps_done;
  before.unmaps_done = pages_[page].unmaps_done;
  return before;
}

absl::Status SharedWords::EndRead(const Before& before, int reader, int writer,
                                  uint64_t page, uint64_t found) {
  Word& word = WordOf(writer, page);
  const uint64_t high = word.high;
  const bool unmapped = pages_[page].unmaps_begun > before.unmaps_at_write;
  const bool own = reader == writer;
  const bool right = found == 0
                         ? before.low == 0 || unmapped
                         : found >= before.low && found <= high &&
                               !(own && before.unmaps_done > word.unmaps_begun);
  if (!right) {
    return absl::DataLossError(Format(
        "CPU %d reads 0x%x in the word of CPU %d in page %d, where 0x%x to "
        "0x%x was written; of %d unmaps of the page, %d were done before the "
        "write, and %d before the read",
        reader, found, writer, page, before.low, high,
        pages_[page].unmaps_begun.load(), before.unmaps_at_write,
        before.unmaps_done));
  }
  if (own) {
    word.low = found;
    word.high = found;
  }
  return absl::OkStatus();
}

SharedWords::Before SharedWords::BeginWrite(int cpu, uint64_t page,
                                            uint64_t value) {
  Word& word = WordOf(cpu, page);
  Before before;
  before.high = word.high;
  before.unmaps_done = pages_[page].unmaps_done;
  before.protection = pages_[page].protection;
  word.high = value;
  return before;
}

absl::Status SharedWords::EndWrite(const Before& before, int cpu, uint64_t page,
                                   uint64_t value) {
  Word& word = WordOf(cpu, page);
  word.unmaps_done = before.unmaps_done;
  word.unmaps_begun = pages_[page].unmaps_begun.load();
  word.low = value;
  if (before.protection % 2 == 1 &&
      pages_[page].protection == before.protection) {
    return absl::DataLossError(
        Format("CPU %d writes to page %d, which is read-only", cpu, page));
  }
  return absl::OkStatus();
}

void SharedWords::WriteDenied(const Before& before, int cpu, uint64_t page) {
  WordOf(cpu, page).high = before.high;
}

bool SharedWords::TryClaim(uint64_t page) {
  return !pages_[page].claimed.exchange(true);
}
void SharedWords::Release(uint64_t page) { pages_[page].claimed = false; }

void SharedWords::BeginUnmap(uint64_t page) {
  SetWritable(page);  // a page that is mapped anew is
  ++pages_[page].unmaps_begun;
}
void SharedWords::EndUnmap(uint64_t page) { ++pages_[page].unmaps_done; }

void SharedWords::SetReadOnly(uint64_t page) {
  if (pages_[page].protection % 2 == 0) ++pages_[page].protection;
}
void SharedWords::SetWritable(uint64_t page) {
  if (pages_[page].protection % 2 == 1) ++pages_[page].protection;
}

SharedWords::SharedWords(const SharedWords& parent)
    : cpus_(parent.cpus_),
      pages_(parent.pages_.size()),
      words_(parent.words_.size()) {
  for (size_t i = 0; i < words_.size(); ++i) {
    words_[i].low = parent.words_[i].low.load();
    words_[i].unmaps_done = parent.words_[i].unmaps_done.load();
  }
  for (size_t i = 0; i < pages_.size(); ++i) {
    pages_[i].protection = parent.pages_[i].protection.load();
  }
}

void SharedWords::EndFork(const SharedWords& parent) {
  for (size_t i = 0; i < words_.size(); ++i) {
    Word& word = words_[i];
    word.high = parent.words_[i].high.load();
    const Page& page = parent.pages_[i / static_cast<size_t>(cpus_)];
    if (page.unmaps_begun > word.unmaps_done) word.low = 0;
    word.unmaps_done = 0;
  }
  for (size_t i = 0; i < pages_.size(); ++i) {
    const bool same = pages_[i].protection == parent.pages_[i].protection;
    pages_[i].protection = same ? pages_[i].protection % 2 : 0;
  }
}

}  // namespace mmu
