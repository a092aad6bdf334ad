#include "server/log/peer.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/log/logging.h"

namespace mmud {
namespace {

TEST(PeerTest, AUnixSocketsPeerIsTheProcessThatConnected) {
  int fds[2] = {};
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  EXPECT_EQ(DescribePeer(absl::StrCat("fd:", fds[0])),
            (LogFields{{"uid", absl::StrCat(getuid())},
                       {"pid", absl::StrCat(getpid())}}));
  close(fds[0]);
  close(fds[1]);
}

TEST(PeerTest, AnInternetSocketsPeerHasAnAddress) {
  const int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  ASSERT_EQ(bind(listening, generic, size), 0);
  ASSERT_EQ(listen(listening, 1), 0);
  ASSERT_EQ(getsockname(listening, generic, &size), 0);
  const int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(connect(client, generic, size), 0);
  EXPECT_EQ(DescribePeer(absl::StrCat("fd:", client)),
            (LogFields{{"address",
                        absl::StrCat("127.0.0.1:", ntohs(address.sin_port))}}));
  close(client);
  close(listening);
}

TEST(PeerTest, OthersHaveAnAddress) {
  EXPECT_EQ(DescribePeer("ipv4:127.0.0.1:4711"),
            (LogFields{{"address", "127.0.0.1:4711"}}));
  EXPECT_EQ(DescribePeer("ipv6:%5B::1%5D:4711"),
            (LogFields{{"address", "[::1]:4711"}}));
  EXPECT_EQ(DescribePeer("unix:"), (LogFields{{"address", "unix:"}}));
  EXPECT_EQ(DescribePeer(""), (LogFields{{"address", ""}}));
}

TEST(PeerTest, WhatIsNoSocketIsNotTakenForAPeer) {
  const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  for (const std::string& peer :
       {absl::StrCat("fd:", fd), std::string("fd:-1"), std::string("fd:x")}) {
    EXPECT_EQ(DescribePeer(peer), (LogFields{{"address", peer}}));
  }
  close(fd);
}

}  // namespace
}  // namespace mmud
