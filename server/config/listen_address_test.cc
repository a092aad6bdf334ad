#include "server/config/listen_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace mmud {
namespace {

using ::testing::HasSubstr;

class Socket {
 public:
  explicit Socket(int family) : fd_(socket(family, SOCK_STREAM, 0)) {}
  ~Socket() { close(fd_); }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  int fd() const { return fd_; }

 private:
  const int fd_;
};

// Binds a socket; if it is closed, a stale file stays behind.
void BindUnix(const Socket& socket, const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  ASSERT_EQ(
      bind(socket.fd(), reinterpret_cast<sockaddr*>(&address), sizeof(address)),
      0);
  ASSERT_EQ(listen(socket.fd(), 1), 0);
}

// A folder of its own for each test, with a short name: the path of a socket
// may have 107 bytes, and TempDir() can be longer.
class UnixSocketPathTest : public ::testing::Test {
 protected:
  UnixSocketPathTest() {
    std::string folder = "/tmp/listen_address_test.XXXXXX";
    EXPECT_NE(mkdtemp(folder.data()), nullptr);
    folder_ = folder;
  }
  ~UnixSocketPathTest() override { std::filesystem::remove_all(folder_); }

  std::string PathOf(const std::string& name) const {
    return folder_ + "/" + name;
  }

 private:
  std::string folder_;
};

TEST(ListenAddress, TellsLoopbackFromTheRest) {
  EXPECT_TRUE(ParseListenAddress("x", "127.0.0.1:0")->is_loopback);
  EXPECT_TRUE(ParseListenAddress("x", "127.9.8.7:1")->is_loopback);
  EXPECT_TRUE(ParseListenAddress("x", "localhost:1")->is_loopback);
  EXPECT_TRUE(ParseListenAddress("x", "[::1]:1")->is_loopback);
  EXPECT_FALSE(ParseListenAddress("x", "0.0.0.0:1")->is_loopback);
  EXPECT_FALSE(ParseListenAddress("x", "[::]:1")->is_loopback);
  EXPECT_EQ(ParseListenAddress("x", "[::1]:80")->ToString(), "[::1]:80");
}

TEST(ListenAddress, RefusesEverythingElse) {
  for (const char* text :
       {"", "80", ":80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536",
        "127.0.0.1:-1", "host:80", "::1:80", "[::1:80"}) {
    const absl::Status status = ParseListenAddress("opt", text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr("opt is")) << text;
  }
}

TEST(ListenAddress, OneListensOnAPortAndTheNextIsTold) {
  ListenAddress address = ParseListenAddress("opt", "127.0.0.1:0").value();
  const absl::StatusOr<int> first = ListenOnTcp("opt", &address);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_NE(address.port, 0);
  EXPECT_THAT(std::string(ListenOnTcp("opt", &address).status().message()),
              HasSubstr("another process uses this port"));
  close(*first);
  const absl::StatusOr<int> again = ListenOnTcp("opt", &address);
  EXPECT_TRUE(again.ok()) << again.status();
  close(again.value_or(-1));
}

TEST_F(UnixSocketPathTest, ASocketIsMadeForOwnerAndGroup) {
  const std::string path = PathOf("made");
  const absl::StatusOr<int> fd = ListenOnUnix(path);
  ASSERT_TRUE(fd.ok()) << fd.status();
  struct stat info;
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, mode_t{0660});
  close(*fd);
}

TEST_F(UnixSocketPathTest, OnlyOneCanClaimAPath) {
  const std::string path = PathOf("claimed");
  UnixSocketPath first;
  ASSERT_TRUE(first.Claim(path).ok());
  UnixSocketPath second;
  EXPECT_THAT(std::string(second.Claim(path).message()),
              HasSubstr("another process serves"));
}

TEST_F(UnixSocketPathTest, AServedSocketIsLeftAlone) {
  const std::string path = PathOf("served");
  const Socket server(AF_UNIX);
  BindUnix(server, path);
  {
    UnixSocketPath late;
    EXPECT_EQ(late.Claim(path).code(), absl::StatusCode::kUnavailable);
  }
  EXPECT_EQ(access(path.c_str(), F_OK), 0);
}

TEST_F(UnixSocketPathTest, AStaleSocketIsReplaced) {
  const std::string path = PathOf("stale");
  BindUnix(Socket(AF_UNIX), path);
  UnixSocketPath claim;
  EXPECT_TRUE(claim.Claim(path).ok());
  EXPECT_NE(access(path.c_str(), F_OK), 0);
}

TEST_F(UnixSocketPathTest, AFileIsNoSocket) {
  const std::string path = PathOf("file");
  std::ofstream(path) << "precious";
  {
    UnixSocketPath claim;
    EXPECT_EQ(claim.Claim(path).code(), absl::StatusCode::kFailedPrecondition);
  }
  EXPECT_EQ(access(path.c_str(), F_OK), 0);
}

TEST_F(UnixSocketPathTest, ALongPathIsRefused) {
  UnixSocketPath claim;
  EXPECT_EQ(claim.Claim("/" + std::string(200, 'x')).code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace mmud
