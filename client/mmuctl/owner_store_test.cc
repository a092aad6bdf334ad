#include "client/mmuctl/owner_store.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

constexpr char kAddress[] = "unix:/tmp/mmud.sock";
constexpr char kVm[] = "vms/alpha";

mode_t ModeOf(const std::string& path) {
  struct stat status = {};
  EXPECT_EQ(stat(path.c_str(), &status), 0) << path;
  return status.st_mode & 07777;
}

bool Contains(const absl::Status& status, const std::string& part) {
  return std::string(status.message()).find(part) != std::string::npos;
}

class OwnerStoreTest : public testing::Test {
 protected:
  OwnerStoreTest() {
    std::string name = absl::StrCat(testing::TempDir(), "/owner.XXXXXX");
    root_ = mkdtemp(name.data());
    store_.emplace(Directory());
  }
  ~OwnerStoreTest() override { std::filesystem::remove_all(root_); }

  std::string Directory() const { return root_ + "/mmuctl"; }

  std::string root_;
  std::optional<OwnerStore> store_;
  const StoredOwner owner_ = {"0123456789abcdef0123456789abcdef", "me",
                              std::string("\0\x01\xff secret bytes", 16)};
};

TEST_F(OwnerStoreTest, WhatIsSavedIsLoaded) {
  ASSERT_TRUE(store_->Save(kAddress, kVm, owner_).ok());
  const auto loaded = store_->Load(kAddress, kVm);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  ASSERT_TRUE(loaded->has_value());
  EXPECT_EQ((*loaded)->log_id, owner_.log_id);
  EXPECT_EQ((*loaded)->owner, owner_.owner);
  EXPECT_EQ((*loaded)->token, owner_.token);
}

TEST_F(OwnerStoreTest, NothingIsKeptOfAnotherVmOrDaemon) {
  ASSERT_TRUE(store_->Save(kAddress, kVm, owner_).ok());
  EXPECT_FALSE(store_->Load(kAddress, "vms/beta")->has_value());
  EXPECT_FALSE(store_->Load("localhost:9443", kVm)->has_value());
  EXPECT_FALSE(store_->LoadCandidate(kAddress, kVm)->has_value());
}

TEST_F(OwnerStoreTest, DirectoryAndFileAreReadableByTheirOwnerOnly) {
  const mode_t mask = umask(0);
  ASSERT_TRUE(store_->Save(kAddress, kVm, owner_).ok());
  umask(mask);
  EXPECT_EQ(ModeOf(Directory()), 0700u);
  EXPECT_EQ(ModeOf(store_->PathOf(kAddress, kVm)), 0600u);
}

TEST_F(OwnerStoreTest, SavingReplacesAndLeavesNothingElseBehind) {
  ASSERT_TRUE(store_->Save(kAddress, kVm, owner_).ok());
  StoredOwner other = owner_;
  other.token = "another secret, of 33 bytes in all";
  ASSERT_TRUE(store_->Save(kAddress, kVm, other).ok());
  EXPECT_EQ((*store_->Load(kAddress, kVm))->token, other.token);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(Directory()),
                          std::filesystem::directory_iterator()),
            1);
}

TEST_F(OwnerStoreTest, CandidateIsKeptBesideThePresentToken) {
  ASSERT_TRUE(store_->Save(kAddress, kVm, owner_).ok());
  StoredOwner candidate = owner_;
  candidate.token = "of the next ownership";
  ASSERT_TRUE(store_->SaveCandidate(kAddress, kVm, candidate).ok());
  EXPECT_EQ((*store_->Load(kAddress, kVm))->token, owner_.token);
  EXPECT_EQ((*store_->LoadCandidate(kAddress, kVm))->token, candidate.token);
  ASSERT_TRUE(store_->RemoveCandidate(kAddress, kVm).ok());
  EXPECT_FALSE(store_->LoadCandidate(kAddress, kVm)->has_value());
  EXPECT_TRUE(store_->RemoveCandidate(kAddress, kVm).ok());
  ASSERT_TRUE(store_->Remove(kAddress, kVm).ok());
  EXPECT_FALSE(store_->Load(kAddress, kVm)->has_value());
}

TEST_F(OwnerStoreTest, FileThatOthersCanReadIsRefusedWithTheFix) {
  ASSERT_TRUE(store_->Save(kAddress, kVm, owner_).ok());
  const std::string path = store_->PathOf(kAddress, kVm);
  ASSERT_EQ(chmod(path.c_str(), 0640), 0);
  const absl::Status status = store_->Load(kAddress, kVm).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_TRUE(Contains(status, "mode 0640")) << status;
  EXPECT_TRUE(Contains(status, absl::StrCat("run chmod 0600 ", path)))
      << status;
}

TEST_F(OwnerStoreTest, FixLeadsToTheDaemon) {
  const OwnerStore store(Directory(), "mmuctl --address unix:/a");
  ASSERT_TRUE(store.Save(kAddress, kVm, owner_).ok());
  const std::string path = store.PathOf(kAddress, kVm);
  ASSERT_EQ(chmod(path.c_str(), 0640), 0);
  const absl::Status open = store.Load(kAddress, kVm).status();
  EXPECT_TRUE(Contains(
      open, "mmuctl --address unix:/a dirty-log acquire alpha --force"))
      << open;
  ASSERT_EQ(chmod(path.c_str(), 0600), 0);
  std::ofstream(path, std::ios::trunc) << "{";
  const absl::Status damaged = store.Load(kAddress, kVm).status();
  EXPECT_TRUE(Contains(
      damaged, "mmuctl --address unix:/a dirty-log acquire alpha, with"))
      << damaged;
}

TEST_F(OwnerStoreTest, DirectoryThatOthersCanReadIsRefusedWithTheFix) {
  ASSERT_TRUE(store_->Save(kAddress, kVm, owner_).ok());
  ASSERT_EQ(chmod(Directory().c_str(), 0755), 0);
  for (const absl::Status& status : {store_->Load(kAddress, kVm).status(),
                                     store_->Save(kAddress, kVm, owner_)}) {
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    EXPECT_TRUE(Contains(status, absl::StrCat("run chmod 0700 ", Directory())))
        << status;
  }
}

TEST_F(OwnerStoreTest, LinkIsNotFollowed) {
  ASSERT_TRUE(store_->Save(kAddress, kVm, owner_).ok());
  const std::string path = store_->PathOf(kAddress, kVm);
  ASSERT_EQ(rename(path.c_str(), (root_ + "/elsewhere").c_str()), 0);
  ASSERT_EQ(symlink((root_ + "/elsewhere").c_str(), path.c_str()), 0);
  const absl::Status status = store_->Load(kAddress, kVm).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_TRUE(Contains(status, absl::StrCat(path, " is a symlink"))) << status;
  EXPECT_TRUE(Contains(status,
                       "delete it, and acquire the log again: mmuctl "
                       "dirty-log acquire alpha"))
      << status;
  EXPECT_TRUE(store_->Has(kAddress, kVm));
  // Saving replaces the symlink, not the file that it points to.
  ASSERT_TRUE(store_->Save(kAddress, kVm, owner_).ok());
  EXPECT_FALSE(std::filesystem::is_symlink(path));
}

TEST_F(OwnerStoreTest, DamagedFileIsRefused) {
  ASSERT_TRUE(store_->Save(kAddress, kVm, owner_).ok());
  const std::string path = store_->PathOf(kAddress, kVm);
  for (const char* text :
       {"", "{", "[]", "{\"schema\": \"mmuctl.dirty_log_owner/1\"}",
        "{\"schema\": \"mmuctl.dirty_log_owner/1\", \"owner_token\": \"xy\"}",
        "{\"schema\": \"mmuctl.dirty_log_owner/1\", \"owner_token\": "
        "\"ab\"}"}) {
    std::ofstream(path, std::ios::trunc) << text;
    EXPECT_TRUE(absl::IsDataLoss(store_->Load(kAddress, kVm).status())) << text;
  }
}

TEST_F(OwnerStoreTest, PlaceComesFromTheEnvironment) {
  setenv("XDG_RUNTIME_DIR", (root_ + "/run").c_str(), 1);
  setenv("HOME", (root_ + "/home").c_str(), 1);
  ASSERT_TRUE(std::filesystem::create_directory(root_ + "/run"));
  EXPECT_EQ(OwnerStore::FromEnvironment()
                ->PathOf(kAddress, kVm)
                .rfind(root_ + "/run/mmuctl/alpha-", 0),
            0u);
  unsetenv("XDG_RUNTIME_DIR");
  ASSERT_TRUE(std::filesystem::create_directory(root_ + "/home"));
  const auto expect_home = [this] {
    const auto store = OwnerStore::FromEnvironment();
    ASSERT_TRUE(store.ok()) << store.status();
    EXPECT_EQ(store->PathOf(kAddress, kVm)
                  .rfind(root_ + "/home/.cache/mmuctl/alpha-", 0),
              0u);
  };
  expect_home();
  // A value that is not the absolute path of a folder is ignored.
  for (const std::string& value :
       {std::string(), root_ + "/missing", std::string(".")}) {
    setenv("XDG_RUNTIME_DIR", value.c_str(), 1);
    expect_home();
  }
  unsetenv("XDG_RUNTIME_DIR");
  for (const char* value : {"", "relative"}) {
    setenv("HOME", value, 1);
    EXPECT_TRUE(
        absl::IsFailedPrecondition(OwnerStore::FromEnvironment().status()));
  }
  unsetenv("HOME");
  EXPECT_TRUE(
      absl::IsFailedPrecondition(OwnerStore::FromEnvironment().status()));
}

TEST_F(OwnerStoreTest, FolderThatIsALinkIsRefused) {
  ASSERT_EQ(mkdir((root_ + "/elsewhere").c_str(), 0700), 0);
  ASSERT_EQ(symlink((root_ + "/elsewhere").c_str(), Directory().c_str()), 0);
  const absl::Status status = store_->Save(kAddress, kVm, owner_);
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_TRUE(Contains(status, absl::StrCat(Directory(), " is a symlink")))
      << status;
}

TEST_F(OwnerStoreTest, LockThatIsALinkIsRefused) {
  ASSERT_TRUE(store_->Save(kAddress, kVm, owner_).ok());
  const std::string path = store_->PathOf(kAddress, kVm) + ".lock";
  ASSERT_EQ(symlink((root_ + "/elsewhere").c_str(), path.c_str()), 0);
  const absl::Status status = store_->Lock(kAddress, kVm).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_TRUE(Contains(status, absl::StrCat(path, " is a symlink"))) << status;
}

TEST_F(OwnerStoreTest, WhereNoFolderCanBeMadeTheNextPlaceIsTaken) {
  // No user, not even root, can make a folder in /proc.
  setenv("XDG_RUNTIME_DIR", "/proc", 1);
  setenv("HOME", root_.c_str(), 1);
  const auto store = OwnerStore::FromEnvironment();
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_EQ(store->PathOf(kAddress, kVm).rfind(root_ + "/.cache/mmuctl/", 0),
            0u);
  ASSERT_TRUE(store->Save(kAddress, kVm, owner_).ok());
  int found = 0;
  for (const OwnerStore& other : OwnerStore::AllOfEnvironment()) {
    found += other.Has(kAddress, kVm) ? 1 : 0;
  }
  EXPECT_EQ(found, 1);

  std::ofstream(root_ + "/file") << "";
  setenv("HOME", (root_ + "/file").c_str(), 1);
  const absl::Status status = OwnerStore::FromEnvironment().status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_TRUE(Contains(status, "/proc/mmuctl cannot be made: ")) << status;
  EXPECT_TRUE(Contains(status, root_ + "/file/.cache cannot be made: "))
      << status;
  EXPECT_TRUE(Contains(status, "set XDG_RUNTIME_DIR to a folder of yours"))
      << status;
}

TEST_F(OwnerStoreTest, EverySpellingOfASocketsPathIsOneAddress) {
  char before[4096];
  ASSERT_NE(getcwd(before, sizeof(before)), nullptr);
  ASSERT_EQ(chdir(root_.c_str()), 0);
  char folder[4096];
  ASSERT_NE(getcwd(folder, sizeof(folder)), nullptr);
  const std::string whole = absl::StrCat(folder, "/mmud.sock");
  ASSERT_TRUE(store_->Save("unix:" + whole, kVm, owner_).ok());
  for (const std::string& address :
       {"unix://" + whole, "unix:///" + whole, whole,
        std::string("unix:mmud.sock"), std::string("./mmud.sock"),
        std::string("unix:./x/../mmud.sock"),
        absl::StrCat("unix:", folder, "//.//mmud.sock")}) {
    const auto loaded = store_->Load(address, kVm);
    ASSERT_TRUE(loaded.ok()) << address << loaded.status();
    EXPECT_TRUE(loaded->has_value()) << address;
    EXPECT_EQ(store_->PathOf(address, kVm),
              store_->PathOf("unix:" + whole, kVm));
  }
  for (const std::string& address :
       {"unix:/other" + whole, std::string("unix:other.sock"),
        std::string("localhost:9443")}) {
    EXPECT_FALSE(store_->Has(address, kVm)) << address;
  }
  ASSERT_EQ(chdir(before), 0);
}

TEST_F(OwnerStoreTest, NoNameLeadsOutOfTheFolder) {
  for (const char* vm : {"vms/../../up", "../up", "vms/a/b", "/tmp/up", ""}) {
    const std::string path = store_->PathOf(kAddress, vm);
    EXPECT_EQ(std::filesystem::path(path).parent_path(), Directory()) << vm;
    EXPECT_TRUE(store_->Save(kAddress, vm, owner_).ok()) << vm;
    EXPECT_TRUE(std::filesystem::exists(path)) << vm;
  }
  EXPECT_LT(store_->PathOf(kAddress, std::string(5000, 'a')).size(),
            Directory().size() + 100);
}

TEST_F(OwnerStoreTest, LockIsHeldByOneAndLeavesNothingBehind) {
  {
    const auto lock = store_->Lock(kAddress, kVm);
    ASSERT_TRUE(lock.ok()) << lock.status();
    const absl::Status second = store_->Lock(kAddress, kVm).status();
    EXPECT_TRUE(absl::IsAborted(second)) << second;
    EXPECT_TRUE(Contains(second, "another mmuctl")) << second;
    EXPECT_TRUE(store_->Lock(kAddress, "vms/beta").ok());
  }
  EXPECT_TRUE(std::filesystem::is_empty(Directory()));
  EXPECT_TRUE(store_->Lock(kAddress, kVm).ok());
}

}  // namespace
}  // namespace mmud::client
