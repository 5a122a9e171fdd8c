// write_seeds DIRECTORY: the valid inputs from which the targets of sockets set out, one folder a
// target.
#include <filesystem>
#include <fstream>
#include <iostream>

#include "terrace/attach/foreign_bytes_fixture.h"
#include "terrace/serve/foreign_bytes_fixture.h"
#include "terrace/serve/http/foreign_bytes_fixture.h"

namespace {

bool write_all(const std::filesystem::path& folder, const std::vector<std::string>& seeds) {
  std::filesystem::create_directories(folder);
  for (std::size_t i = 0; i < seeds.size(); ++i) {
    std::ofstream file(folder / std::to_string(i), std::ios::binary);
    if (!(file << seeds[i]).flush()) return false;
  }
  return true;
}

// Of what is text: one of each kind that matters.
bool write_texts(const std::filesystem::path& folder) {
  using namespace std::string_literals;  // NOLINT(google-build-using-namespace)
  const std::string size_of_meta(8192 + 64, '\0');
  return write_all(folder / "settings_json",
                   {R"({"host.size":"2GiB","disk":{"size":"8GiB","paths":["/a","/b"]}})",
                    R"({"disk.size":8589934592,"disk.direct":true,"offload.scope":"prompt"})",
                    R"({"attach.lookup_wait":"250ms","host":{"size":1.5}})"}) &&
         write_all(folder / "settings_toml",
                   {"[host]\nsize = \"2GiB\"\n[disk]\nsize = \"8GiB\"\npaths = [\"/a\"]\n",
                    "host.size = 1024\n# a comment\ndisk = { size = '1GiB', paths = ['/a'] }\n",
                    "host.size = 1_000\nx = 1979-05-27T07:32:00Z\ny = [[1], [\"a\"]]\n"}) &&
         write_all(folder / "settings_environment",
                   {"TERRACE_HOST_SIZE=2GiB\0TERRACE_DISK_PATHS=/a,/b\0TERRACE_DISK_SIZE=1GiB"s,
                    "DYN_KVBM_CPU_CACHE_GB=4\0DYN_KVBM_DISK_CACHE_GB=0.5"s,
                    "DYN_KVBM_DISK_CACHE_DIR=/a\0HOME=/root\0TERRACE_HSOT_SIZE=1"s}) &&
         write_all(folder / "s3_answer",
                   {"HTTP/1.1 206 X\nContent-Length: 10\nContent-Range: bytes 5-14/100\n\n",
                    "HTTP/1.1 200 X\nContent-Length: 9\nLast-Modified: Sun, 06 Nov 1994 08:49:37 "
                    "GMT\n\n",
                    "HTTP/1.1 503 X\nRetry-After: 3\n\n<Error><Code>SlowDown</Code></Error>",
                    "HTTP/1.1 200 X\n\n<ListBucketResult><IsTruncated>false</IsTruncated><Contents>"
                    "<Key>team/kv/a/b</Key><Size>3</Size><LastModified>2026-01-01T00:00:00.000Z"
                    "</LastModified></Contents></ListBucketResult>",
                    "[default]\naws_access_key_id = A\naws_secret_access_key = b\n"}) &&
         write_all(
             folder / "object_names",
             {"v1/0123456789abcdef0123456789abcdef/g0/n16/ab/abcdef0123456789abcdef0123456789.pack",
              "a/=1f3/b", "=new-host-1-2", "00000000001800000000", "18446744073709551615",
              "a/../b"}) &&
         write_all(
             folder / "disk_open",
             {"\0\0\0TERRMETA"s, "\0\1\200"s + std::string(64, '\1'), "\0\0\0"s + size_of_meta,
              "\1\0\0TERRDISK"s, "\1\1\100"s + "extents", "\2\0\0content\nmodel=model-a\n"s,
              "\3\0\0"
              "1800000000"s,
              "\4\1\0TRCFRAME"s});
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::cerr << "usage: write_seeds DIRECTORY\n";
    return 2;
  }
  const std::filesystem::path folder = arguments[1];
  const bool is_written =
      write_texts(folder) &&
      write_all(folder / "attach_owner", terrace::attach::OwnerUnderBytes::seeds()) &&
      write_all(folder / "attach_worker", terrace::attach::WorkerUnderBytes::seeds()) &&
      write_all(folder / "admin_server", terrace::serve::ServerUnderBytes::seeds()) &&
      write_all(folder / "admin_client", terrace::serve::ClientUnderBytes::seeds()) &&
      write_all(folder / "http_server", terrace::serve::PortUnderBytes::seeds());
  return is_written ? 0 : 1;
}
