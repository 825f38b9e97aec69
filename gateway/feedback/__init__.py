"""What comes back: bounces, complaints, clicks and unsubscribes."""
