#include "server/rpc/open_connections.h"

#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gtest/gtest.h"

namespace mmud {
namespace {

int MakeSocket() {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  EXPECT_GE(fd, 0);
  return fd;
}

TEST(OpenConnections, AClosedOneLeavesRoomForAnother) {
  OpenConnections connections;
  connections.SetLimit(2);
  const int first = MakeSocket();
  const int second = MakeSocket();
  connections.Add(first);
  EXPECT_FALSE(connections.full());
  connections.Add(second);
  EXPECT_TRUE(connections.full());
  EXPECT_EQ(connections.Use().used, 2);
  close(first);
  EXPECT_FALSE(connections.full());
  EXPECT_EQ(connections.Use().used, 1);
  close(second);
}

TEST(OpenConnections, ADescriptorThatStandsForSomethingElseIsNoConnection) {
  OpenConnections connections;
  connections.SetLimit(1);
  const int fd = MakeSocket();
  connections.Add(fd);
  const int other = MakeSocket();
  ASSERT_EQ(dup2(other, fd), fd);
  EXPECT_FALSE(connections.full());
  close(fd);
  close(other);
}

TEST(OpenConnections, CountsDescriptorsAndRaisesTheirLimit) {
  const int64_t before = CountDescriptors();
  const int fd = MakeSocket();
  EXPECT_EQ(CountDescriptors(), before + 1);
  close(fd);
  rlimit limit = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  limit.rlim_cur = limit.rlim_max / 2;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  EXPECT_GT(RaiseDescriptorLimit(), 0);
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  EXPECT_EQ(limit.rlim_cur, limit.rlim_max);
}

}  // namespace
}  // namespace mmud
