#include "client/mmuctl/owner_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "client/mmuctl/owner_lock.h"
#include "nlohmann/json.hpp"

namespace mmud::client {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kSchema[] = "mmuctl.dirty_log_owner/1";
constexpr mode_t kOthers = S_IRWXG | S_IRWXO;
// Of a VM's id, in the name of its file.
constexpr size_t kMaxIdBytes = 63;
// A command that ends in between ends within this time.
constexpr absl::Duration kLockWait = absl::Seconds(2);

// Closes it at its end. Not to be copied.
class File {
 public:
  explicit File(int descriptor) : descriptor_(descriptor) {}
  ~File() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int get() const { return descriptor_; }
  bool ok() const { return descriptor_ >= 0; }

 private:
  const int descriptor_;
};

absl::Status Failed(absl::string_view what, const std::string& path) {
  return absl::InternalError(
      absl::StrCat("cannot ", what, " ", path, ": ", std::strerror(errno)));
}

// An error unless `status` is of what is this person's alone; `mode` is what it
// is to have, for the fix.
absl::Status CheckPrivate(const struct stat& status, const std::string& path,
                          absl::string_view mode) {
  if (status.st_uid != geteuid()) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "%s belongs to user %d, not to you: owner tokens are not kept there; "
        "remove it, or set XDG_RUNTIME_DIR to a folder of yours",
        path, status.st_uid));
  }
  if ((status.st_mode & kOthers) != 0) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "%s is open to others (mode %04o), so its owner token may be no secret "
        "any more; run chmod %s %s, and if somebody else may have read it, "
        "mmuctl dirty-log acquire VM --force",
        path, status.st_mode & 07777, mode, path));
  }
  return absl::OkStatus();
}

// Tells the files of two VMs apart; what is in them says whose they are.
uint64_t Hash(absl::string_view text) {
  uint64_t hash = 14695981039346656037u;
  for (const char byte : text) {
    hash = (hash ^ static_cast<uint8_t>(byte)) * 1099511628211u;
  }
  return hash;
}

// The variable's value; "" unless it is an absolute path.
std::string AbsolutePath(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && *value == '/' ? value : "";
}

bool IsFolder(const std::string& path) {
  struct stat status = {};
  return stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

absl::Status Damaged(const std::string& path, absl::string_view problem) {
  return absl::DataLossError(absl::StrCat(
      path, " ", problem,
      ": it holds no owner token of mmuctl; remove it, and acquire the log "
      "again: mmuctl dirty-log acquire VM"));
}

}  // namespace

absl::StatusOr<OwnerStore> OwnerStore::FromEnvironment() {
  if (const std::string runtime = AbsolutePath("XDG_RUNTIME_DIR");
      !runtime.empty() && IsFolder(runtime)) {
    return OwnerStore(absl::StrCat(runtime, "/mmuctl"));
  }
  if (const std::string home = AbsolutePath("HOME"); !home.empty()) {
    const std::string cache = absl::StrCat(home, "/.cache");
    if (mkdir(cache.c_str(), S_IRWXU) != 0 && errno != EEXIST) {
      return Failed("make", cache);
    }
    return OwnerStore(absl::StrCat(cache, "/mmuctl"));
  }
  return absl::FailedPreconditionError(
      "neither XDG_RUNTIME_DIR nor HOME is the absolute path of a folder, so "
      "there is no place for the owner token of a dirty log; set one of them");
}

OwnerStore::OwnerStore(std::string directory)
    : directory_(std::move(directory)) {}

std::string OwnerStore::PathOf(absl::string_view address,
                               absl::string_view vm) const {
  std::string id(absl::StripPrefix(vm, "vms/").substr(0, kMaxIdBytes));
  for (char& c : id) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '-') {
      c = '_';
    }
  }
  return absl::StrFormat("%s/%s-%016x.json", directory_, id,
                         Hash(absl::StrCat(address, " ", vm)));
}

std::string OwnerStore::CandidatePathOf(absl::string_view address,
                                        absl::string_view vm) const {
  return absl::StrCat(PathOf(address, vm), ".candidate");
}

absl::Status OwnerStore::CheckDirectory() const {
  if (mkdir(directory_.c_str(), S_IRWXU) != 0 && errno != EEXIST) {
    return Failed("make", directory_);
  }
  struct stat status = {};
  if (lstat(directory_.c_str(), &status) != 0) {
    return Failed("look at", directory_);
  }
  if (!S_ISDIR(status.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(
        directory_, " is no folder: owner tokens are kept there; remove it"));
  }
  return CheckPrivate(status, directory_, "0700");
}

absl::StatusOr<std::optional<StoredOwner>> OwnerStore::LoadFile(
    const std::string& path, absl::string_view address,
    absl::string_view vm) const {
  if (absl::Status status = CheckDirectory(); !status.ok()) return status;
  const File file(open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!file.ok()) {
    if (errno == ENOENT) return std::nullopt;
    return Failed("read", path);
  }
  struct stat status = {};
  if (fstat(file.get(), &status) != 0) return Failed("look at", path);
  if (!S_ISREG(status.st_mode)) return Damaged(path, "is no file");
  if (absl::Status check = CheckPrivate(status, path, "0600"); !check.ok()) {
    return check;
  }
  std::string text;
  char buffer[4096];
  ssize_t size;
  while ((size = read(file.get(), buffer, sizeof(buffer))) > 0) {
    text.append(buffer, static_cast<size_t>(size));
  }
  if (size < 0) return Failed("read", path);
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto field = [&json](const char* name) {
    return json.is_object() && json.contains(name) && json[name].is_string()
               ? json[name].get<std::string>()
               : std::string();
  };
  std::string token;
  const std::string hex = field("owner_token");
  if (field("schema") != kSchema || hex.empty() || hex.size() % 2 != 0 ||
      hex.find_first_not_of("0123456789abcdef") != hex.npos) {
    return Damaged(path, "is damaged");
  }
  token = absl::HexStringToBytes(hex);
  if (field("address") != address || field("vm") != vm) {
    return Damaged(
        path, absl::StrCat("is of ", field("vm"), " at ", field("address")));
  }
  return StoredOwner{field("log_id"), field("owner"), token};
}

absl::Status OwnerStore::SaveFile(const std::string& path,
                                  absl::string_view address,
                                  absl::string_view vm,
                                  const StoredOwner& owner) const {
  if (absl::Status status = CheckDirectory(); !status.ok()) return status;
  const std::string text =
      Json{{"schema", kSchema},
           {"address", std::string(address)},
           {"vm", std::string(vm)},
           {"log_id", owner.log_id},
           {"owner", owner.owner},
           {"owner_token", absl::BytesToHexString(owner.token)}}
          .dump(1, ' ', false, Json::error_handler_t::replace) +
      "\n";
  // mkostemp makes it with mode 0600.
  std::string temporary = absl::StrCat(path, ".XXXXXX");
  const auto give_up = [&temporary](absl::Status status) {
    unlink(temporary.c_str());
    return status;
  };
  {
    const File file(mkostemp(temporary.data(), O_CLOEXEC));
    if (!file.ok()) return Failed("write", temporary);
    size_t at = 0;
    while (at < text.size()) {
      const ssize_t written =
          write(file.get(), text.data() + at, text.size() - at);
      if (written < 0) return give_up(Failed("write", temporary));
      at += static_cast<size_t>(written);
    }
    if (fsync(file.get()) != 0) return give_up(Failed("write", temporary));
  }
  if (rename(temporary.c_str(), path.c_str()) != 0) {
    return give_up(Failed("replace", path));
  }
  const File directory(
      open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.ok() || fsync(directory.get()) != 0) {
    return Failed("write", directory_);
  }
  return absl::OkStatus();
}

absl::StatusOr<OwnerLock> OwnerStore::Lock(absl::string_view address,
                                           absl::string_view vm) const {
  if (absl::Status status = CheckDirectory(); !status.ok()) return status;
  return OwnerLock::Take(absl::StrCat(PathOf(address, vm), ".lock"), kLockWait);
}

absl::StatusOr<std::optional<StoredOwner>> OwnerStore::Load(
    absl::string_view address, absl::string_view vm) const {
  return LoadFile(PathOf(address, vm), address, vm);
}

absl::Status OwnerStore::Save(absl::string_view address, absl::string_view vm,
                              const StoredOwner& owner) const {
  return SaveFile(PathOf(address, vm), address, vm, owner);
}

absl::Status OwnerStore::Remove(absl::string_view address,
                                absl::string_view vm) const {
  const std::string path = PathOf(address, vm);
  if (unlink(path.c_str()) == 0 || errno == ENOENT) return absl::OkStatus();
  return Failed("remove", path);
}

absl::StatusOr<std::optional<StoredOwner>> OwnerStore::LoadCandidate(
    absl::string_view address, absl::string_view vm) const {
  return LoadFile(CandidatePathOf(address, vm), address, vm);
}

absl::Status OwnerStore::SaveCandidate(absl::string_view address,
                                       absl::string_view vm,
                                       const StoredOwner& owner) const {
  return SaveFile(CandidatePathOf(address, vm), address, vm, owner);
}

absl::Status OwnerStore::RemoveCandidate(absl::string_view address,
                                         absl::string_view vm) const {
  const std::string path = CandidatePathOf(address, vm);
  if (unlink(path.c_str()) == 0 || errno == ENOENT) return absl::OkStatus();
  return Failed("remove", path);
}

}  // namespace mmud::client
