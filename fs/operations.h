#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "core/engine/engine.h"
#include "core/engine/helper_threads.h"
#include "fs/control_files.h"
#include "fs/fuse_api.h"
#include "fs/fuse_replies.h"
#include "fs/handle.h"
#include "fs/later.h"
#include "fs/node_table.h"
#include "fs/nodes/root.h"
#include "fs/passthrough.h"
#include "fs/pending_request.h"
#include "fs/request_gate.h"

namespace qcache {

/// The FUSE operations: each decodes a request, asks a Node, and replies. No rule of the filesystem lives here but
/// those of the kernel's protocol:
///
/// - Names are never cached by the kernel (entry timeout 0): every open looks its name up and gets the node that is
///   right now, sealed or filling, of the model as it is. That costs one request per path component and needs no
///   invalidation, which can deadlock.
/// - A node is always opened in one mode: one that is read by the daemon with direct I/O (exact ranges, interruptible,
///   no pages that a later sealed file could contradict), one of a complete file with passthrough or, all its opens,
///   through the page cache.
/// - What asks for files of a model goes through RequestGate as a PendingRequest: its filesystem may stop, and then a
///   few threads wait for it, and its callers can be killed. Nothing else waits.
/// Handlers run on several libfuse threads at once and never wait for quantization.
class Operations {
 public:
  /// `shared` as for NodeContext. `max_read` is the mount option of that name, which libfuse wants to hear twice; 0
  /// where it is not given.
  Operations(Engine& engine, ControlFiles& control, bool passthrough, bool shared, unsigned max_read);

  /// To be called before the session's first request with its descriptor, and once its last has been answered.
  void connect(int session_fd) { passthrough_.connect(session_fd); }
  void disconnect() { passthrough_.disconnect(); }

  /// Open files whose reads fail when this process ends: being made, or complete and not handed to the kernel.
  [[nodiscard]] size_t files_served_here() const { return handles_.served_here(); }

  /// libfuse's table; the session's user data must be this object.
  static const fuse_lowlevel_ops& table();

  /// Answers nothing any more that is still waited for. To be called before the session ends.
  void stop();

  void init(fuse_conn_info* connection);
  void lookup(fuse_req_t req, uint64_t parent, const char* name);
  void getattr(fuse_req_t req, uint64_t id, const fuse_file_info* fi);
  void opendir(fuse_req_t req, uint64_t id, fuse_file_info* fi);
  void readdir(fuse_req_t req, size_t size, off_t offset, const fuse_file_info* fi);
  void open(fuse_req_t req, uint64_t id, fuse_file_info* fi);
  void read(fuse_req_t req, uint64_t id, size_t size, off_t offset, const fuse_file_info* fi);
  void release(fuse_req_t req, const fuse_file_info* fi);
  void remove(fuse_req_t req, uint64_t parent, const char* name, bool folder);
  void statfs(fuse_req_t req);
  void getxattr(fuse_req_t req, uint64_t id, const char* name, size_t size);
  void listxattr(fuse_req_t req, uint64_t id, size_t size);
  void setxattr(fuse_req_t req, uint64_t id, const char* name, const char* value, size_t size);
  void forget(uint64_t id, uint64_t lookups) { nodes_.forget(id, lookups); }

 private:
  using Request = std::shared_ptr<PendingRequest>;
  using Work = RequestGate::Work;
  /// The node that the kernel knows by this number. Null where there is none of this kind: the request is answered.
  template <typename Kind>
  [[nodiscard]] std::shared_ptr<const Kind> find(fuse_req_t req, uint64_t id) const {
    auto found = std::dynamic_pointer_cast<const Kind>(nodes_.find(id));
    if (!found) {
      fuse_reply_err(req, kUnknownNode);
    }
    return found;
  }

  /// Runs `work`, which asks for files of the model (empty: of none), now or later; it answers the request if it can
  /// claim it.
  void through_gate(fuse_req_t req, std::string_view model, Work work);
  void enter_gate(Request request, const std::string& model, Work work);
  /// Runs `work` through the gate again when the model's files have settled; fails the request at the last attempt.
  void when_settled(const Request& request, std::string_view model, int64_t settles_in_ns, int attempt, Work work);
  /// A program is about to open the weights.
  void announce_reader(const ArtifactName& weights, int attempt);
  void remove_child(const Request& request, const FolderNode& parent, const std::string& name, bool is_folder);

  /// `attempt`: as when_settled(); `waited`: on the node's advice.
  void open_in_gate(const Request& request, uint64_t id, const std::shared_ptr<const FileNode>& file,
                    const fuse_file_info& fi, int attempt, bool waited);
  /// Opens what a node stands for: fills the handle and the reply's flags. `settles_in_ns` as of Engine::open_now().
  Status open_file(uint64_t id, const FileNode& file, Handle& handle, fuse_file_info* fi, int64_t& settles_in_ns);
  /// Offers it the file below, which it reads by itself or through the page cache.
  Status hand_to_kernel(uint64_t id, const OpenFile& file, Handle& handle, fuse_file_info* fi);
  void reply_open(fuse_req_t req, Handle handle, fuse_file_info& reply);
  void set_in_gate(const Request& request, const std::shared_ptr<const Node>& node, const std::string& name,
                   const std::string& value, int attempt);

  Engine& engine_;
  ControlFiles& control_;
  const NodeContext context_;
  NodeTable nodes_;
  Passthrough passthrough_;
  HandleTable handles_;  // after it: handles hold what it counts
  const unsigned max_read_;
  RequestGate gate_;
  HelperThreads helpers_{RequestGate::kOfOneRoot};  // what is due later, and closing what may hang
  Later later_;
};

}  // namespace qcache
