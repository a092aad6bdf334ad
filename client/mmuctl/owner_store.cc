#include "client/mmuctl/owner_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "client/mmuctl/owner_lock.h"
#include "client/text/write_all.h"
#include "nlohmann/json.hpp"

namespace mmud::client {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kSchema[] = "mmuctl.dirty_log_owner/1";
constexpr mode_t kOthers = S_IRWXG | S_IRWXO;
// Maximum number of bytes of a VM's id in the name of its file.
constexpr size_t kMaxIdBytes = 63;
// How long to wait for a lock. A command that is about to end does so within
// this time.
constexpr absl::Duration kLockWait = absl::Seconds(2);

// A file descriptor that is closed by the destructor. Not copyable.
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

// The error of a system call on a file. FAILED_PRECONDITION if the user can fix
// it: by another folder, other permissions or free space. Otherwise INTERNAL.
absl::Status Failed(absl::string_view what, const std::string& path) {
  const int error = errno;
  const std::string message =
      absl::StrCat("cannot ", what, " ", path, ": ", std::strerror(error));
  switch (error) {
    case EACCES:
    case EPERM:
    case EROFS:
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
    case ENAMETOOLONG:
      return absl::FailedPreconditionError(
          absl::StrCat(message,
                       "; make it readable and writable for you, or set "
                       "XDG_RUNTIME_DIR to a folder of yours"));
    case ENOSPC:
    case EDQUOT:
      return absl::FailedPreconditionError(
          absl::StrCat(message,
                       "; free some space there, or set XDG_RUNTIME_DIR to a "
                       "folder of yours that has some"));
    default:
      return absl::InternalError(message);
  }
}

// An error if the file or folder belongs to another user or others can access
// it. The fix in the message uses `mode`, the right permissions; `vm`, the VM
// of the token; and `mmuctl`, the start of a command line.
absl::Status CheckPrivate(const struct stat& status, const std::string& path,
                          absl::string_view mode, absl::string_view vm,
                          absl::string_view mmuctl) {
  if (status.st_uid != geteuid()) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "%s belongs to user %d, not to you: owner tokens are not kept there; "
        "remove it, or set XDG_RUNTIME_DIR to a folder of yours",
        path, status.st_uid));
  }
  if ((status.st_mode & kOthers) != 0) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "%s can be read by others (mode %04o), so its owner token may no "
        "longer be secret; run chmod %s %s, and if another user may have read "
        "it, %s dirty-log acquire %s --force",
        path, status.st_mode & 07777, mode, path, mmuctl,
        absl::StripPrefix(vm, "vms/")));
  }
  return absl::OkStatus();
}

// Gives the files of two VMs different names. The contents of a file name its
// VM.
uint64_t Hash(absl::string_view text) {
  uint64_t hash = 14695981039346656037u;
  for (const char byte : text) {
    hash = (hash ^ static_cast<uint8_t>(byte)) * 1099511628211u;
  }
  return hash;
}

// The environment variable's value; "" unless it is an absolute path.
std::string AbsolutePath(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && *value == '/' ? value : "";
}

bool IsFolder(const std::string& path) {
  struct stat status = {};
  return stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

bool Exists(const std::string& path) {
  struct stat status = {};
  return lstat(path.c_str(), &status) == 0;
}

// Makes a folder that only this user can access. Does nothing if the path
// exists; whether it is a suitable folder is checked at its first use.
absl::Status MakeFolder(const std::string& path) {
  if (mkdir(path.c_str(), S_IRWXU) == 0 || errno == EEXIST) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat(path, " cannot be made: ", std::strerror(errno)));
}

// The fix for a bad token file: delete it and acquire the log of `vm` again.
std::string AcquireHint(absl::string_view vm, absl::string_view mmuctl) {
  return absl::StrCat("delete it, and acquire the log again: ", mmuctl,
                      " dirty-log acquire ", absl::StripPrefix(vm, "vms/"),
                      ", with --force while the owner's lease lasts");
}

absl::Status Damaged(const std::string& path, absl::string_view vm,
                     absl::string_view mmuctl, absl::string_view problem) {
  return absl::DataLossError(absl::StrCat(path, " ", problem,
                                          ": it holds no owner token of "
                                          "mmuctl; ",
                                          AcquireHint(vm, mmuctl)));
}

// Converts all spellings of a path to one absolute path without "//", "." and
// "..". Symlinks are not resolved.
std::string AbsoluteForm(absl::string_view path) {
  std::string whole(path);
  if (whole.empty() || whole.front() != '/') {
    char folder[PATH_MAX];
    // Without a current directory a relative path cannot be resolved, so it
    // stays as it is.
    if (getcwd(folder, sizeof(folder)) == nullptr) return whole;
    whole = absl::StrCat(folder, "/", path);
  }
  std::vector<absl::string_view> parts;
  for (const absl::string_view part :
       absl::StrSplit(whole, '/', absl::SkipEmpty())) {
    if (part == ".") continue;
    if (part != "..") {
      parts.push_back(part);
    } else if (!parts.empty()) {
      parts.pop_back();
    }
  }
  return absl::StrCat("/", absl::StrJoin(parts, "/"));
}

// The daemon's address as it is stored. All spellings of a socket's path have
// the same key.
std::string KeyOf(absl::string_view address) {
  const bool is_path =
      !address.empty() && (address[0] == '/' || address[0] == '.');
  if (!is_path && !absl::StartsWith(address, "unix:")) {
    return std::string(address);
  }
  return absl::StrCat("unix:",
                      AbsoluteForm(absl::StripPrefix(address, "unix:")));
}

// A possible place for the folder of tokens, or the reason why it cannot be
// used.
struct Place {
  absl::Status status;  // OK: the folder can be made there
  std::string folder;
};

Place RuntimePlace() {
  const std::string runtime = AbsolutePath("XDG_RUNTIME_DIR");
  if (runtime.empty() || !IsFolder(runtime)) {
    return {absl::FailedPreconditionError(
                "XDG_RUNTIME_DIR is not the absolute path of a folder"),
            ""};
  }
  return {absl::OkStatus(), absl::StrCat(runtime, "/mmuctl")};
}

Place HomePlace() {
  const std::string home = AbsolutePath("HOME");
  if (home.empty()) {
    return {absl::FailedPreconditionError("HOME is no absolute path"), ""};
  }
  return {absl::OkStatus(), absl::StrCat(home, "/.cache/mmuctl")};
}

}  // namespace

absl::StatusOr<OwnerStore> OwnerStore::FromEnvironment(
    const std::string& mmuctl) {
  Place runtime = RuntimePlace();
  if (runtime.status.ok()) runtime.status = MakeFolder(runtime.folder);
  if (runtime.status.ok()) return OwnerStore(runtime.folder, mmuctl);
  Place home = HomePlace();
  if (home.status.ok()) {
    home.status =
        MakeFolder(std::string(absl::StripSuffix(home.folder, "/mmuctl")));
  }
  if (home.status.ok()) home.status = MakeFolder(home.folder);
  if (home.status.ok()) return OwnerStore(home.folder, mmuctl);
  return absl::FailedPreconditionError(absl::StrCat(
      "there is no place for the owner token of a dirty log: ",
      runtime.status.message(), ", and ", home.status.message(),
      "; set XDG_RUNTIME_DIR to a folder of yours that can be written"));
}

std::vector<OwnerStore> OwnerStore::AllOfEnvironment() {
  std::vector<OwnerStore> stores;
  for (const Place& place : {RuntimePlace(), HomePlace()}) {
    if (place.status.ok()) stores.push_back(OwnerStore(place.folder));
  }
  return stores;
}

OwnerStore::OwnerStore(std::string directory, std::string mmuctl)
    : directory_(std::move(directory)), mmuctl_(std::move(mmuctl)) {}

std::string OwnerStore::PathOf(absl::string_view address,
                               absl::string_view vm) const {
  std::string id(absl::StripPrefix(vm, "vms/").substr(0, kMaxIdBytes));
  for (char& c : id) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '-') {
      c = '_';
    }
  }
  return absl::StrFormat("%s/%s-%016x.json", directory_, id,
                         Hash(absl::StrCat(KeyOf(address), " ", vm)));
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
        directory_, S_ISLNK(status.st_mode) ? " is a symlink" : " is no folder",
        ": owner tokens are kept there, in a folder of your own; delete it"));
  }
  return CheckPrivate(status, directory_, "0700", "VM", mmuctl_);
}

absl::StatusOr<std::optional<StoredOwner>> OwnerStore::LoadFile(
    const std::string& path, absl::string_view address,
    absl::string_view vm) const {
  if (absl::Status status = CheckDirectory(); !status.ok()) return status;
  const File file(open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!file.ok()) {
    if (errno == ENOENT) return std::nullopt;
    if (errno == ELOOP) {
      return absl::FailedPreconditionError(absl::StrCat(
          path,
          " is a symlink, which is not followed: another user may have made it "
          "and know the token that it leads to; ",
          AcquireHint(vm, mmuctl_)));
    }
    return Failed("read", path);
  }
  struct stat status = {};
  if (fstat(file.get(), &status) != 0) return Failed("look at", path);
  if (!S_ISREG(status.st_mode)) return Damaged(path, vm, mmuctl_, "is no file");
  if (absl::Status check = CheckPrivate(status, path, "0600", vm, mmuctl_);
      !check.ok()) {
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
    return Damaged(path, vm, mmuctl_, "is damaged");
  }
  token = absl::HexStringToBytes(hex);
  if (field("address") != KeyOf(address) || field("vm") != vm) {
    return Damaged(
        path, vm, mmuctl_,
        absl::StrCat("is of ", field("vm"), " at ", field("address")));
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
           {"address", KeyOf(address)},
           {"vm", std::string(vm)},
           {"log_id", owner.log_id},
           {"owner", owner.owner},
           {"owner_token", absl::BytesToHexString(owner.token)}}
          .dump(1, ' ', false, Json::error_handler_t::replace) +
      "\n";
  // mkostemp makes the file with mode 0600.
  std::string temporary = absl::StrCat(path, ".XXXXXX");
  const auto give_up = [&temporary](absl::Status status) {
    unlink(temporary.c_str());
    return status;
  };
  {
    const File file(mkostemp(temporary.data(), O_CLOEXEC));
    if (!file.ok()) return Failed("write", temporary);
    if (!WriteAll(file.get(), text) || fsync(file.get()) != 0) {
      return give_up(Failed("write", temporary));
    }
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

bool OwnerStore::Has(absl::string_view address, absl::string_view vm) const {
  return Exists(PathOf(address, vm)) || Exists(CandidatePathOf(address, vm));
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
