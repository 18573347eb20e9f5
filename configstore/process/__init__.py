"""What both programs do first: load fewer modules, and protect their memory."""
