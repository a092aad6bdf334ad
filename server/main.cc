// mmud, the daemon.

#include "server/daemon.h"

int main(int argc, char** argv) {
  return mmud::RunDaemon(argc, argv, mmud::DaemonVariant());
}
