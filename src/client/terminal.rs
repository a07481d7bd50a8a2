//! What a command waits for beside the node: whoever sits at the terminal, and time. Neither holds up Ctrl-C.

use std::time::Duration;

/// A line of standard input, without its end; `None` when there is none.
pub async fn line() -> Option<String> {
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        let read = std::io::stdin().read_line(&mut line);
        read.ok().filter(|bytes| *bytes > 0).map(|_| line.trim().to_owned())
    });
    read.await.ok().flatten()
}

/// Waits so long.
pub async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}
