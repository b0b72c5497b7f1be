//! Generates the chat's messages and services.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    nexus_rpc_build::Builder::new()
        // Answered by the batch writer after its commit; nobody waits meanwhile.
        .responder("nexus.chat.OneChatServiceRpc.FriendChat")
        .responder("nexus.chat.GroupChatServiceRpc.GroupChat")
        // Only hands the acknowledgements to the batch writer.
        .inline("nexus.chat.UserServiceRpc.Acknowledge")
        .compile(&["chat/service.proto"], &["../../proto"])?;
    Ok(())
}
